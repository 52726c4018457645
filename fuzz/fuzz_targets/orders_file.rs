//! The file in which orders outlive the agent.

#![no_main]

use std::{fs, path::Path};

use lb_userspace::orders::Store;
use libfuzzer_sys::fuzz_target;
use tempfile::TempDir;

thread_local! {
    static FOLDER: TempDir = folder();
}

fuzz_target!(|bytes: &[u8]| {
    FOLDER.with(|folder| {
        let store = Store::new(folder.path(), "fuzz");
        fs::write(store.path(), bytes).expect("the folder is ours");
        if let Ok(orders) = store.load() {
            store.save(&orders).expect("the folder is ours");
            assert_eq!(store.load().expect("our own words"), orders);
        }
    });
});

/// In memory where that is possible: each file is synchronized with what it lies on.
fn folder() -> TempDir {
    tempfile::tempdir_in(Path::new("/dev/shm")).or_else(|_| tempfile::tempdir()).expect("a temporary folder")
}
