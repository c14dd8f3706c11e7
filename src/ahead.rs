//! Work that is begun ahead of its turn, and handed out in order: a bounded number of tasks at a time.

use std::collections::VecDeque;

use tokio::task::JoinError;
use tokio_util::task::AbortOnDropHandle;

/// Outcomes of `waiting` work, in its order; at most `most` of them are under way or done and not yet taken. Dropping it
/// ends what is under way.
pub(crate) struct Ahead<I, T> {
    waiting: I,
    running: VecDeque<AbortOnDropHandle<T>>,
    most: usize,
}

impl<I, W, T> Ahead<I, T>
where
    I: Iterator<Item = W>,
    W: Future<Output = T> + Send + 'static,
    T: Send + 'static,
{
    /// Nothing is begun yet; `most` is at least 1.
    pub(crate) fn new(waiting: I, most: usize) -> Ahead<I, T> {
        Ahead { waiting, running: VecDeque::with_capacity(most), most: most.max(1) }
    }

    /// The next outcome; `None` after the last.
    ///
    /// # Errors
    /// When its work panicked.
    pub(crate) async fn next(&mut self) -> Option<Result<T, JoinError>> {
        while self.running.len() < self.most
            && let Some(work) = self.waiting.next()
        {
            self.running.push_back(AbortOnDropHandle::new(tokio::spawn(work)));
        }
        Some(self.running.pop_front()?.await)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn outcomes_come_in_order_and_no_more_than_so_many_are_under_way() {
        let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let work = |number: u64| {
            let (running, most) = (Arc::clone(&running), Arc::clone(&most));
            async move {
                most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                // The later ones are done first.
                tokio::time::sleep(Duration::from_millis(100 - number)).await;
                running.fetch_sub(1, Ordering::SeqCst);
                number
            }
        };
        let mut ahead = Ahead::new((0..20).map(work), 4);
        let mut outcomes = Vec::new();
        while let Some(outcome) = ahead.next().await {
            outcomes.push(outcome.expect("no panic"));
        }
        assert_eq!(outcomes, (0..20).collect::<Vec<_>>());
        assert_eq!(most.load(Ordering::SeqCst), 4);
    }

    #[tokio::test]
    async fn without_work_there_is_no_outcome() {
        let mut ahead = Ahead::new(std::iter::empty::<std::future::Ready<()>>(), 4);
        assert!(ahead.next().await.is_none());
    }
}
