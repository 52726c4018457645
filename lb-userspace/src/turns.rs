//! Who may wait for which file: a file system that hangs must not get hold of every thread there is.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use tokio::{
    sync::Semaphore,
    task::{JoinError, spawn_blocking},
};

/// Turns at each of some files, a number of them at a time.
#[derive(Debug)]
pub struct Turns {
    at_once: usize,
    files: Mutex<BTreeMap<PathBuf, Arc<Semaphore>>>,
}

impl Turns {
    /// So many at a time at each file.
    #[must_use]
    pub const fn new(at_once: usize) -> Self {
        Self { at_once, files: Mutex::new(BTreeMap::new()) }
    }

    /// Does what may wait for this file in a thread of its own, once it has a turn. What hangs keeps its turn, also when nobody
    /// waits for this future any more.
    ///
    /// # Errors
    /// When `work` panicked.
    pub async fn take<T: Send + 'static>(
        &self,
        path: &Path,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, JoinError> {
        let turn = self.at(path).acquire_owned().await.expect("nobody closes the semaphore");
        spawn_blocking(move || {
            let result = work();
            drop(turn);
            result
        })
        .await
    }

    fn at(&self, path: &Path) -> Arc<Semaphore> {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = files.get(path) {
            return file.clone();
        }
        // A new file is the moment to forget those that nobody waits for.
        files.retain(|_, file| Arc::strong_count(file) > 1);
        files.entry(path.to_owned()).or_insert_with(|| Arc::new(Semaphore::new(self.at_once))).clone()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            atomic::{AtomicUsize, Ordering},
            mpsc,
        },
        time::Duration,
    };

    use tokio::time::timeout;

    use super::*;

    /// A bound for "does not end": nothing else could end it.
    const LITTLE: Duration = Duration::from_millis(10);

    #[tokio::test]
    async fn what_hangs_keeps_its_turns_and_no_other_file_waiting() {
        let turns = Turns::new(3);
        let (path, begun) = (Path::new("/dead/check"), Arc::new(AtomicUsize::new(0)));
        let (release, hang) = mpsc::channel::<()>();
        let hang = Arc::new(Mutex::new(hang));
        for _ in 0..10 {
            let (begun, hang) = (begun.clone(), hang.clone());
            let work = move || {
                begun.fetch_add(1, Ordering::SeqCst);
                hang.lock().unwrap().recv().is_err()
            };
            timeout(LITTLE, turns.take(path, work)).await.expect_err("it hangs");
        }
        assert!(begun.load(Ordering::SeqCst) <= 3, "each has a thread");
        assert_eq!(turns.take(Path::new("/living/check"), || 7).await.unwrap(), 7);
        drop(release);
        assert_eq!(turns.take(path, || 8).await.unwrap(), 8);
    }

    #[tokio::test]
    async fn nothing_is_kept_of_files_that_nobody_waits_for() {
        let turns = Turns::new(1);
        for number in 0..5 {
            turns.take(Path::new(&format!("/{number}")), || ()).await.unwrap();
        }
        assert_eq!(turns.files.lock().unwrap().len(), 1, "the last one");
    }
}
