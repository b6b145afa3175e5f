//! Request bodies within a bound.

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use futures::StreamExt as _;

/// How much of a refused body is read and thrown away.
///
/// The host's proxy turns an early refusal into a 500 unless the rest of the body is taken from it
/// (watched on a host 4.1037); past this bound the sender deserves the 500.
const DRAIN_BYTES: usize = 32 * 1024 * 1024;

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
pub async fn read_body(body: Body, limit_bytes: usize) -> Result<Bytes, BodyError> {
    let mut stream = body.into_data_stream();
    let mut read = BytesMut::new();
    while let Some(chunk) = stream.next().await {
        let chunk = chunk?;
        if read.len() + chunk.len() > limit_bytes {
            let mut drained = read.len() + chunk.len();
            drop(read);
            while drained < DRAIN_BYTES
                && let Some(chunk) = stream.next().await
            {
                drained += chunk?.len();
            }
            return Err(BodyError::TooLong { limit_bytes });
        }
        read.extend_from_slice(&chunk);
    }
    Ok(read.freeze())
}

#[cfg(test)]
mod tests {
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
