//! What drives one connection, or one stream of it, for each work.

use std::{io, sync::Arc};

use futures_util::FutureExt;
use tokio::io::AsyncReadExt;

use super::{
    Run, Tally, handshake, http1, http2,
    tunnel::Tunnel,
    wire::{Dialer, Wire},
};
use crate::{
    bench::job::{Job, Protocol, Work},
    shutdown::Tasks,
};

/// One connection or stream, and what it does.
pub(super) enum Worker {
    Http1(http1::Client),
    Http2(http2::Client),
    Tunnel(Tunnel),
    Handshake(handshake::Client),
    Idle(Held),
}

/// An idle connection.
pub(super) enum Held {
    Wire(Wire),
    Http2(http2::Client),
}

impl Worker {
    /// Does its work until the run is over, or fails.
    pub(super) async fn run(&mut self, run: &Run, tally: &mut Tally) {
        let done = match self {
            Self::Http1(client) => client.run(run, tally).await,
            Self::Http2(client) => client.run(run, tally).await,
            Self::Tunnel(tunnel) => tunnel.run(run, tally).await,
            Self::Handshake(client) => client.run(run, tally).await,
            Self::Idle(held) => held.check(tally),
        };
        if let Err(error) = done {
            tally.error(&error);
        }
        run.finished.set(run.finished.get() + 1);
    }

    /// Whether it is a connection already, and not only about to make some.
    pub(super) fn is_open(&self) -> bool {
        !matches!(self, Self::Handshake(_))
    }
}

impl Held {
    /// Counts the connection when it is still there.
    fn check(&mut self, tally: &mut Tally) -> io::Result<()> {
        let open = match self {
            Self::Wire(wire) => {
                tally.negotiated = wire.negotiated;
                wire.io.read(&mut [0]).now_or_never().is_none()
            }
            Self::Http2(client) => {
                tally.negotiated = client.negotiated;
                client.is_open()
            }
        };
        if !open {
            return Err(io::Error::other("an idle connection was closed"));
        }
        tally.units = 1;
        Ok(())
    }
}

/// Opens what a job asks for.
pub(super) struct Opener<'a> {
    job: &'a Job,
    tasks: &'a Tasks,
    dialer: Dialer,
    request: Arc<[u8]>,
}

impl<'a> Opener<'a> {
    /// # Errors
    ///
    /// When the job is wrong.
    pub(super) fn new(job: &'a Job, tasks: &'a Tasks) -> io::Result<Self> {
        Ok(Self {
            job,
            tasks,
            dialer: Dialer::new(job, 0)?,
            request: http1::request(&job.target, job.work == Work::New),
        })
    }

    /// The workers of one connection.
    pub(super) async fn open(&self, number: usize) -> io::Result<Vec<Worker>> {
        match self.job.work {
            Work::Handshakes | Work::Resumptions | Work::New => {
                let dialer = Dialer::new(self.job, number)?;
                let request = Arc::clone(&self.request);
                let client = handshake::Client::new(dialer, self.job.work, request).await?;
                Ok(vec![Worker::Handshake(client)])
            }
            Work::TunnelDownload | Work::TunnelUpload | Work::PingPong => {
                let tunnels = self.tunnels().await?.into_iter();
                let worker = |wire| Worker::Tunnel(Tunnel::new(wire, self.job.work));
                Ok(tunnels.map(worker).collect())
            }
            Work::Requests | Work::Download => self.requests().await,
            Work::Idle if self.job.target.connect.is_some() => {
                let tunnels = self.tunnels().await?.into_iter();
                Ok(tunnels.map(|wire| Worker::Idle(Held::Wire(wire))).collect())
            }
            Work::Idle => self.idle().await,
        }
    }

    async fn tunnels(&self) -> io::Result<Vec<Wire>> {
        let mut wire = self.dialer.dial().await?;
        let target = &self.job.target;
        let Some(connect) = &target.connect else {
            return Ok(vec![wire]);
        };
        if target.protocol == Protocol::H1 {
            http1::connect(&mut *wire.io, connect).await?;
            return Ok(vec![wire]);
        }
        let mut client = http2::Client::new(wire, target, self.job.work, self.tasks).await?;
        let mut tunnels = Vec::with_capacity(self.job.streams);
        for _ in 0..self.job.streams {
            tunnels.push(client.connect(connect).await?);
        }
        Ok(tunnels)
    }

    async fn requests(&self) -> io::Result<Vec<Worker>> {
        let wire = self.dialer.dial().await?;
        let job = self.job;
        if job.target.protocol == Protocol::H1 {
            let request = Arc::clone(&self.request);
            let client = http1::Client::new(wire, request, job.work);
            return Ok(vec![Worker::Http1(client)]);
        }
        let client = http2::Client::new(wire, &job.target, job.work, self.tasks).await?;
        let streams = (0..job.streams).map(|_| Worker::Http2(client.clone()));
        Ok(streams.collect())
    }

    /// A connection that has had one request, or where there is no host to ask, none.
    async fn idle(&self) -> io::Result<Vec<Worker>> {
        let mut wire = self.dialer.dial().await?;
        let job = self.job;
        let held = if job.target.protocol == Protocol::H2 {
            let mut client = http2::Client::new(wire, &job.target, job.work, self.tasks).await?;
            client.exchange().await?;
            Held::Http2(client)
        } else {
            if !job.target.host.is_empty() {
                let mut buffer = [0; 8 * 1024];
                http1::exchange(&mut *wire.io, &self.request, &mut buffer).await?;
            }
            Held::Wire(wire)
        };
        Ok(vec![Worker::Idle(held)])
    }
}
