//! Happy Eyeballs: several addresses tried with a head start each, the first connected one wins.

use std::{net::SocketAddr, time::Duration};

use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::time::{Instant, sleep_until};

/// Tries addresses in their order: the next one starts when the one before has failed, or has not
/// finished within `delay` (RFC 8305, section 5). The others are dropped when one is connected.
///
/// `attempt` brings its own time limit.
///
/// # Errors
///
/// The last failure, when all have failed; `None` when there was no address.
pub(super) async fn race<F, T, E>(
    addresses: &[SocketAddr],
    delay: Duration,
    attempt: impl Fn(SocketAddr) -> F,
) -> Result<T, Option<E>>
where
    F: Future<Output = Result<T, E>>,
{
    let mut waiting = addresses.iter();
    let mut running = FuturesUnordered::new();
    let mut last = None;
    let mut next = Instant::now();
    loop {
        if running.is_empty() || next <= Instant::now() {
            match waiting.next() {
                Some(address) => running.push(attempt(*address)),
                None if running.is_empty() => return Err(last),
                None => {}
            }
            next = Instant::now() + delay;
        }
        tokio::select! {
            biased;
            finished = running.next() => match finished {
                Some(Ok(connected)) => return Ok(connected),
                Some(Err(error)) => {
                    last = Some(error);
                    next = Instant::now();
                }
                None => {}
            },
            () = sleep_until(next), if waiting.len() > 0 => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::pending,
        sync::atomic::{AtomicUsize, Ordering},
    };

    use tokio::time::sleep;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_silent_first_address_costs_one_delay() {
        let began = Instant::now();

        let winner = race(&addresses(3), DELAY, |address| async move {
            if address.port() == 1 {
                pending::<()>().await;
            }
            Ok::<_, ()>(address.port())
        })
        .await;

        assert_eq!(winner, Ok(2));
        assert_eq!(began.elapsed(), DELAY);
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_address_costs_no_delay() {
        let began = Instant::now();

        let winner = race(&addresses(3), DELAY, |address| async move {
            if address.port() == 3 { Ok(3) } else { Err(()) }
        })
        .await;

        assert_eq!(winner, Ok(3));
        assert_eq!(began.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_address_may_still_win() {
        let winner = race(&addresses(2), DELAY, |address| async move {
            let time = if address.port() == 1 { 300 } else { 1000 };
            sleep(Duration::from_millis(time)).await;
            Ok::<_, ()>(address.port())
        })
        .await;

        assert_eq!(winner, Ok(1));
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_failure_is_told_when_all_fail() {
        let tries = AtomicUsize::new(0);

        let lost = race(&addresses(3), DELAY, |address| {
            tries.fetch_add(1, Ordering::Relaxed);
            async move { Err::<(), _>(address.port()) }
        })
        .await;

        assert_eq!(lost, Err(Some(3)));
        assert_eq!(tries.into_inner(), 3);
    }

    #[tokio::test]
    async fn no_address_is_no_connection() {
        let lost = race(&[], DELAY, |_| async { Err::<(), _>(()) }).await;

        assert_eq!(lost, Err(None));
    }

    const DELAY: Duration = Duration::from_millis(250);

    fn addresses(count: u16) -> Vec<SocketAddr> {
        (1..=count)
            .map(|port| SocketAddr::from(([192, 0, 2, 1], port)))
            .collect()
    }
}
