//! Faults of the endpoint, and the stream that they interrupt.

use std::pin::pin;

use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, copy_bidirectional};
use tokio::sync::watch;

/// How the endpoint misbehaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fault {
    /// It does not.
    #[default]
    None,
    /// Connections are closed: existing ones, and new ones as soon as they are made.
    Refuse,
    /// Events are rejected with `amqp:internal-error`.
    RejectSends,
    /// Events are rejected with `com.microsoft:server-busy`.
    Busy,
    /// Connections are accepted and kept, and nothing is said on them, also on existing ones.
    Silent,
}

/// Bytes on their way between the socket and the protocol.
const BUFFER_BYTES: usize = 256 * 1024;

/// Serves a stream until either side closes it, under the faults that hold at the time.
pub(super) async fn interruptible<Io, F>(
    mut stream: Io,
    mut fault: watch::Receiver<Fault>,
    serve: impl FnOnce(DuplexStream) -> F,
) where
    Io: AsyncRead + AsyncWrite + Unpin,
    F: Future<Output = ()>,
{
    let (mut near, far) = tokio::io::duplex(BUFFER_BYTES);
    // The protocol gets its end of file by `near` being dropped, and then ends by itself.
    let copying = async move {
        let mut copying = pin!(copy_bidirectional(&mut stream, &mut near));
        loop {
            let current = *fault.borrow_and_update();
            match current {
                Fault::Refuse => return,
                // The copying is only halted, so that no byte is lost if the silence ends.
                Fault::Silent => {}
                Fault::None | Fault::RejectSends | Fault::Busy => tokio::select! {
                    copied = &mut copying => {
                        if let Err(error) = copied {
                            tracing::debug!(%error, "the connection broke");
                        }
                        return;
                    }
                    changed = fault.changed() => match changed {
                        Ok(()) => continue,
                        Err(_) => return,
                    },
                },
            }
            if fault.changed().await.is_err() {
                return;
            }
        }
    };
    tokio::join!(copying, serve(far));
}
