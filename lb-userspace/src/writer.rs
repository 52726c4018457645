//! Writes small files in a thread of its own: a disk that hangs keeps nobody else waiting.

use std::{
    io,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

/// Writes the newest of what it is given. Dropping it lets the thread write what waits, and end.
#[derive(Debug)]
pub struct Writer<T> {
    shared: Arc<Shared<T>>,
}

#[derive(Debug)]
struct Shared<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
}

#[derive(Debug)]
struct State<T> {
    next: Option<T>,
    is_writing: bool,
    is_closed: bool,
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Send + 'static> Writer<T> {
    /// Starts the thread.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn spawn(name: &str, write: impl FnMut(T) + Send + 'static) -> io::Result<Self> {
        let state = State { next: None, is_writing: false, is_closed: false };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() });
        let own = Arc::clone(&shared);
        thread::Builder::new().name(name.to_owned()).spawn(move || work(&own, write))?;
        Ok(Self { shared })
    }
}

impl<T> Writer<T> {
    /// Says what is written next, instead of what still waits, which `next` is given. Never waits for the disk.
    pub fn put(&self, next: impl FnOnce(Option<T>) -> T) {
        let mut state = self.shared.lock();
        let before = state.next.take();
        state.next = Some(next(before));
        drop(state);
        self.shared.changed.notify_all();
    }

    /// Waits until everything is written, at most `limit`; whether it is.
    pub fn finish(&self, limit: Duration) -> bool {
        let end = Instant::now() + limit;
        let mut state = self.shared.lock();
        loop {
            if state.next.is_none() && !state.is_writing {
                return true;
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            state = self.shared.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl<T> Drop for Writer<T> {
    fn drop(&mut self) {
        self.shared.lock().is_closed = true;
        self.shared.changed.notify_all();
    }
}

fn work<T>(shared: &Shared<T>, mut write: impl FnMut(T)) {
    let mut state = shared.lock();
    loop {
        if let Some(next) = state.next.take() {
            state.is_writing = true;
            drop(state);
            write(next);
            state = shared.lock();
            state.is_writing = false;
            shared.changed.notify_all();
        } else if state.is_closed {
            return;
        } else {
            state = shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    const LONG: Duration = Duration::from_secs(20);

    #[test]
    fn the_newest_wins_and_nobody_waits_for_a_disk_that_hangs() {
        let (release, disk) = mpsc::channel::<()>();
        let (told, written) = mpsc::channel();
        let writer = Writer::spawn("test", move |number: u32| {
            disk.recv().unwrap();
            told.send(number).unwrap();
        })
        .unwrap();
        assert!(writer.finish(Duration::ZERO), "nothing to do");
        writer.put(|_| 1);
        while writer.shared.lock().next.is_some() {
            thread::yield_now();
        }
        writer.put(|waiting| 2 + waiting.unwrap_or(0));
        writer.put(|waiting| 10 + waiting.unwrap_or(0));
        assert!(!writer.finish(Duration::ZERO));
        (0..2).for_each(|_| release.send(()).unwrap());
        assert!(writer.finish(LONG));
        assert_eq!(written.try_iter().collect::<Vec<_>>(), [1, 12]);
    }

    #[test]
    fn what_waits_at_the_end_is_written() {
        let (told, written) = mpsc::channel();
        let writer = Writer::spawn("test", move |number: u32| told.send(number).unwrap()).unwrap();
        writer.put(|_| 7);
        drop(writer);
        assert_eq!(written.recv_timeout(LONG), Ok(7));
        assert_eq!(written.recv_timeout(LONG), Err(mpsc::RecvTimeoutError::Disconnected), "its thread ends");
    }
}
