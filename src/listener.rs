//! Binds, takes a slot, accepts, one task per connection.

pub mod peer;
pub mod proxy_header;
