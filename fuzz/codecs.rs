//! The codecs that fuzz targets run, compiled from the gateway's own files.

/// HTTP/1 and paths.
#[path = "../src/web"]
pub mod web {
    pub mod chunked;
    pub mod head;
    pub mod path;
}

/// Before TLS.
#[path = "../src/listener"]
pub mod listener {
    pub mod proxy_header;
}
