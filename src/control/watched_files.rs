//! Notices when files change: certificates, keys and authorities, which other programs renew.
//!
//! It asks for the files' metadata four times a second. A watch of the kernel (inotify) would be
//! quicker, but follows neither symbolic links, which Kubernetes swaps, nor network file systems.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// How often the files are looked at.
const POLL_EVERY: Duration = Duration::from_millis(250);

/// What distinguishes a file from its earlier state: device, inode, size, and the times of the last
/// change of content and of metadata. `None`: it cannot be found.
type FileState = Option<(u64, u64, u64, [i64; 4])>;

/// Why files are to be read again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileChange {
    /// A file has changed, and has then stayed the same for a quarter of a second.
    Changed,
    /// The process has received SIGHUP.
    Hangup,
}

/// Files that are read again when they change.
#[derive(Debug)]
pub struct WatchedFiles {
    paths: Vec<PathBuf>,
    /// The states that the last change has ended with.
    known: Vec<FileState>,
    hangup: Signal,
}

impl WatchedFiles {
    /// Watches these files, from their present state on. Create it before the files are read, so
    /// that no change is missed. The caller runs on the control thread's tokio runtime.
    ///
    /// # Errors
    /// The system rejects a handler for SIGHUP.
    pub fn new(paths: Vec<PathBuf>) -> io::Result<Self> {
        let known = states(&paths);
        let hangup = signal(SignalKind::hangup())?;
        Ok(Self {
            paths,
            known,
            hangup,
        })
    }

    /// Waits until files must be read again. A file that is replaced together with another, such as
    /// a key with its certificate, should not be read between the two: so a change counts only when
    /// two looks in a row find the same state. Cancel-safe.
    pub async fn changed(&mut self) -> FileChange {
        let mut last = self.known.clone();
        loop {
            tokio::select! {
                _ = self.hangup.recv() => {
                    self.known = self.look().await;
                    return FileChange::Hangup;
                }
                () = tokio::time::sleep(POLL_EVERY) => {}
            }
            let now = self.look().await;
            if now != self.known && now == last {
                self.known = now;
                return FileChange::Changed;
            }
            last = now;
        }
    }

    /// The present states. The file system may hang, so do not ask it on the control thread.
    async fn look(&self) -> Vec<FileState> {
        let paths = self.paths.clone();
        let look = tokio::task::spawn_blocking(move || states(&paths)).await;
        // The task is cancelled only if the runtime ends.
        look.unwrap_or_default()
    }
}

fn states(paths: &[PathBuf]) -> Vec<FileState> {
    let state = |path: &PathBuf| {
        let about = std::fs::metadata(path).ok()?;
        let times = [
            about.mtime(),
            about.mtime_nsec(),
            about.ctime(),
            about.ctime_nsec(),
        ];
        Some((about.dev(), about.ino(), about.size(), times))
    };
    paths.iter().map(state).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn block_on<T>(work: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime.expect("a runtime").block_on(work)
    }

    /// Whether a change is seen after `change`. Returns how long that took.
    async fn seen(files: &mut WatchedFiles, change: impl FnOnce()) -> Option<Duration> {
        change();
        let began = std::time::Instant::now();
        let changed = tokio::time::timeout(Duration::from_secs(3), files.changed()).await;
        changed.ok().map(|change| {
            assert_eq!(change, FileChange::Changed);
            began.elapsed()
        })
    }

    fn write(path: &Path, text: &str) {
        std::fs::write(path, text).expect("write");
    }

    #[test]
    fn every_way_to_replace_a_file_is_seen() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        write(&path("a"), "one");
        write(&path("target"), "one");
        std::os::unix::fs::symlink(path("target"), path("b")).expect("a link");
        block_on(async {
            let paths = ["a", "b", "later"].map(path).to_vec();
            let mut files = WatchedFiles::new(paths).expect("a handler");
            let written = seen(&mut files, || write(&path("a"), "two")).await;
            assert!(written.is_some());
            // By a rename, as careful programs do.
            let renamed = seen(&mut files, || {
                write(&path("new"), "six");
                std::fs::rename(path("new"), path("a")).expect("rename");
            });
            assert!(renamed.await.is_some());
            // By another target of a link, as Kubernetes does.
            let linked = seen(&mut files, || {
                write(&path("other"), "one");
                std::os::unix::fs::symlink(path("other"), path("link")).expect("a link");
                std::fs::rename(path("link"), path("b")).expect("rename");
            });
            assert!(linked.await.is_some());
            assert!(
                seen(&mut files, || write(&path("later"), ""))
                    .await
                    .is_some()
            );
            let removed = || std::fs::remove_file(path("later")).expect("remove");
            assert!(seen(&mut files, removed).await.is_some());
            assert_eq!(seen(&mut files, || ()).await, None, "nothing has changed");
        });
    }

    #[test]
    fn files_that_keep_changing_are_not_read_half_way() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a");
        write(&path, "");
        block_on(async {
            let mut files = WatchedFiles::new(vec![path.clone()]).expect("a handler");
            let busy = async {
                for n in 0..8 {
                    write(&path, &"x".repeat(n));
                    tokio::time::sleep(POLL_EVERY / 2).await;
                }
            };
            tokio::select! {
                biased;
                change = files.changed() => panic!("{change:?} while it is written"),
                () = busy => {}
            }
            assert!(seen(&mut files, || ()).await.is_some(), "once it rests");
        });
    }
}
