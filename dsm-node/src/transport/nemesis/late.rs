//! Connections that are dead to this process, and that its peer still believes in for a while.

use socket2::Socket;
use std::io::Write;
use std::thread;
use std::time::Duration;

/// Keeps `socket` open for `span`, sends `rest` on it, and closes it. Whoever holds another descriptor of the socket may
/// close that at any time.
pub(super) fn linger(socket: Socket, rest: Vec<u8>, span: Duration) {
    let bury = move || {
        // Time is what this is about: the bytes come when the peer may have another connection already.
        thread::sleep(span);
        // The peer may have hung up, or its buffer be full: a byte that is late may as well be lost.
        let _ = (&socket).write(&rest);
    };
    // Without a thread the connection just ends now.
    let _ = thread::Builder::new().name(String::from("dsm-nemesis")).spawn(bury);
}
