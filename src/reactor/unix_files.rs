//! The files of Unix sockets. A socket is bound to a name of its own first, and takes its path by a
//! rename, which is atomic: a client that connects meanwhile reaches the earlier process or this
//! one, never none.

use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use crate::sys::Listener;

/// A bound Unix socket's file.
#[derive(Debug)]
pub(super) struct UnixFile {
    path: PathBuf,
    /// The name until the socket takes its path.
    bound_as: PathBuf,
    inode: (u64, u64),
}

impl UnixFile {
    /// Binds a socket for this path, with these permissions. It takes the path with
    /// [`Self::publish`]. `shared`: another process may listen there until then.
    ///
    /// # Errors
    /// `AddrInUse` if another process listens at the path and `shared` is false. `AlreadyExists` if
    /// the path is that of another file.
    pub(super) fn bind(path: &Path, mode: u32, shared: bool) -> io::Result<(Self, Listener)> {
        check_free(path, shared)?;
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".{}", std::process::id()));
        let bound_as = PathBuf::from(name);
        let _ = std::fs::remove_file(&bound_as); // Of an earlier process with this id.
        let listener = Listener::bind_unix(&bound_as)?;
        std::fs::set_permissions(&bound_as, std::fs::Permissions::from_mode(mode))?;
        let about = std::fs::symlink_metadata(&bound_as)?;
        let file = Self {
            path: path.to_owned(),
            bound_as,
            inode: (about.dev(), about.ino()),
        };
        Ok((file, listener))
    }

    /// Lets clients find the socket at its path, instead of an earlier process's. Call it when the
    /// socket listens.
    ///
    /// # Errors
    /// The file system's.
    pub(super) fn publish(&self) -> io::Result<()> {
        std::fs::rename(&self.bound_as, &self.path)
    }

    /// Removes the file, unless another process has taken the path.
    pub(super) fn remove(&self) {
        let _ = std::fs::remove_file(&self.bound_as);
        let about = std::fs::symlink_metadata(&self.path);
        if about.is_ok_and(|about| (about.dev(), about.ino()) == self.inode) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Whether a socket may take the path: nothing is there, or the socket of a process that has ended.
fn check_free(path: &Path, shared: bool) -> io::Result<()> {
    let about = match std::fs::symlink_metadata(path) {
        Ok(about) => about,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if !about.file_type().is_socket() {
        let why = "a file that is no socket has this path";
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, why));
    }
    match UnixStream::connect(path) {
        Ok(_) if shared => Ok(()),
        Ok(_) => Err(io::ErrorKind::AddrInUse.into()),
        // Nobody listens: the process has crashed, or has stopped accepting.
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        // The queue is full, or we may not connect: somebody listens.
        Err(_) if shared => Ok(()),
        Err(_) => Err(io::ErrorKind::AddrInUse.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn a_socket_takes_a_free_path_and_the_path_of_a_process_that_has_ended() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("s");
        for _ in 0..2 {
            // The second time the file of the first is still there, and nobody listens.
            let (file, listener) = UnixFile::bind(&path, 0o600, false).expect("free");
            listener.listen(4).expect("it listens");
            file.publish().expect("renamed");
            UnixStream::connect(&path).expect("it accepts");
            let mode = std::fs::metadata(&path).expect("a file").permissions();
            assert_eq!(mode.mode() & 0o777, 0o600);
        }
        assert_eq!(std::fs::read_dir(folder.path()).expect("read").count(), 1);
    }

    #[test]
    fn a_path_in_use_is_taken_only_if_both_say_so() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("s");
        let other = UnixListener::bind(&path).expect("bound");
        let error = UnixFile::bind(&path, 0o600, false).expect_err("in use");
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        let (file, listener) = UnixFile::bind(&path, 0o600, true).expect("shared");
        UnixStream::connect(&path).expect("the other accepts until then");
        listener.listen(4).expect("it listens");
        file.publish().expect("renamed");
        other.set_nonblocking(true).expect("an option");
        while other.accept().is_ok() {}
        UnixStream::connect(&path).expect("this one accepts");
        assert!(other.accept().is_err());
        file.remove();
        assert!(!path.exists());
    }

    #[test]
    fn no_other_file_is_ever_removed() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("s");
        std::fs::write(&path, "precious").expect("write");
        for shared in [false, true] {
            let error = UnixFile::bind(&path, 0o600, shared).expect_err("a file");
            assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        }
        std::fs::remove_file(&path).expect("remove");
        let (file, listener) = UnixFile::bind(&path, 0o600, false).expect("free");
        listener.listen(4).expect("it listens");
        file.publish().expect("renamed");
        // Another process takes the path.
        std::fs::remove_file(&path).expect("remove");
        let _other = UnixListener::bind(&path).expect("bound");
        file.remove();
        assert!(path.exists());
    }
}
