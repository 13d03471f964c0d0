//! Making listening sockets, and asking a connection for its peer.

use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, Type};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;

/// A TCP listener for [`super::Ring::listen`]. With `reuseport` several shards may bind the same address, and the kernel
/// spreads connections over them. Accepted sockets inherit `TCP_NODELAY`.
///
/// # Errors
/// As `socket`, `bind` and `listen`.
pub fn listener_tcp(addr: SocketAddr, backlog: i32, reuseport: bool) -> io::Result<OwnedFd> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(reuseport)?;
    socket.set_tcp_nodelay(true)?;
    socket.bind(&addr.into())?;
    socket.listen(backlog)?;
    Ok(socket.into())
}

/// A listener on a socket file with permissions `mode`. A file left behind by a dead process is replaced.
///
/// # Errors
/// `AddrInUse` if somebody listens on `path`, or if it is not a socket; else as `bind`, `listen` and `chmod`.
pub fn listener_unix(path: &Path, mode: u32, backlog: i32) -> io::Result<OwnedFd> {
    remove_stale(path)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // Linux gives the file the mode of the socket's inode, less the umask: it is never more open than `mode`.
    // SAFETY: no pointers involved.
    if unsafe { libc::fchmod(socket.as_raw_fd(), mode) } != 0 {
        return Err(io::Error::last_os_error());
    }
    socket.bind(&SockAddr::unix(path)?)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
    socket.listen(backlog)?;
    Ok(socket.into())
}

/// Removes a socket file nobody listens on.
fn remove_stale(path: &Path) -> io::Result<()> {
    let in_use = |reason: &str| io::Error::new(io::ErrorKind::AddrInUse, format!("{}: {reason}", path.display()));
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
        Ok(metadata) if !metadata.file_type().is_socket() => return Err(in_use("exists and is not a socket")),
        Ok(_) => {}
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path),
        Ok(_) => Err(in_use("another process listens on it")),
        Err(error) => Err(error),
    }
}

/// The peer's internet address; None for a unix socket or a connection that is already gone.
pub fn peer_addr(fd: impl AsFd) -> Option<SocketAddr> {
    SockRef::from(&fd).peer_addr().ok().and_then(|addr| addr.as_socket())
}
