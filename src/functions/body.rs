//! Request bodies within a bound.

use std::time::Duration;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use tokio::time::timeout;

/// How much of a refused body is read and thrown away. The host's proxy turns an early refusal into a 500 unless the rest of
/// the body is taken from it (watched on a host 4.1037); it takes no body larger than this itself.
const MAX_DRAINED_BYTES: usize = 100 * 1024 * 1024;

/// How long a refused body is read and thrown away. The host sends from its memory.
const DRAIN_TIME: Duration = Duration::from_secs(1);

/// Why a body could not be read.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// It is longer than the bound; the rest was drained.
    #[error("the body is longer than {limit_bytes} bytes")]
    TooLong {
        /// The bound.
        limit_bytes: usize,
    },
    /// The sender broke off.
    #[error("the body broke off: {0}")]
    BrokenOff(#[from] axum::Error),
}

/// Reads a body of at most `limit_bytes`.
///
/// # Errors
/// If it is longer, or if the sender breaks off.
pub async fn read_body(mut body: Body, limit_bytes: usize) -> Result<Bytes, BodyError> {
    let mut taken = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        if taken.len() + data.len() > limit_bytes {
            drop(taken);
            drain_body(body).await;
            return Err(BodyError::TooLong { limit_bytes });
        }
        taken.extend_from_slice(&data);
    }
    Ok(taken.freeze())
}

/// Reads a refused body and throws it away, within bounds, so that the refusal reaches the caller.
pub async fn drain_body(mut body: Body) {
    let rest = async {
        let mut drained = 0;
        while let Some(Ok(frame)) = body.frame().await {
            drained += frame.data_ref().map_or(0, Bytes::len);
            if drained > MAX_DRAINED_BYTES {
                break;
            }
        }
    };
    if timeout(DRAIN_TIME, rest).await.is_err() {
        tracing::debug!("a refused body was not drained in time; the caller may see status 500");
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt as _;

    use super::*;

    #[tokio::test]
    async fn a_body_up_to_the_bound_is_read_and_no_byte_more() {
        assert_eq!(read_body(Body::from("12345"), 5).await.expect("within the bound"), "12345");
        assert!(matches!(read_body(Body::from("123456"), 5).await, Err(BodyError::TooLong { limit_bytes: 5 })));
    }

    #[tokio::test]
    async fn a_refused_body_is_drained() {
        let (taken, body) = {
            let taken = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
            let count = taken.clone();
            let chunks = futures::stream::iter(0..10).map(move |_| {
                count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                Ok::<_, std::io::Error>(Bytes::from_static(b"0123456789"))
            });
            (taken, Body::from_stream(chunks))
        };
        assert!(read_body(body, 15).await.is_err());
        assert_eq!(taken.load(std::sync::atomic::Ordering::Relaxed), 10);
    }
}
