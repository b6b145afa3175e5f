//! A call of an HTTP function until the last byte of its answer.

use std::io::ErrorKind;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use axum::body::Body;
use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use tokio::time::{Instant, Sleep};

use super::fleet::Instance;
use super::shared::Shared;

/// Counts a call as running, also on its instance, until it is dropped.
pub(super) struct HttpCall {
    pub(super) id: String,
    pub(super) shared: Arc<Shared>,
    pub(super) instance: Arc<Instance>,
}

impl HttpCall {
    pub(super) fn begin(id: String, shared: Arc<Shared>, instance: Arc<Instance>) -> Self {
        shared.http_running.fetch_add(1, Ordering::AcqRel);
        instance.running.fetch_add(1, Ordering::AcqRel);
        Self { id, shared, instance }
    }

    /// Ends the life of the handler that took longer than `functionTimeout`.
    pub(super) fn timed_out(&self, life: u64) {
        let id = &self.id;
        self.shared.log.host(format!("A function timeout has occurred. Restarting worker process executing '{id}'."));
        self.instance.handler.restart(life);
    }
}

impl Drop for HttpCall {
    fn drop(&mut self) {
        self.shared.http_running.fetch_sub(1, Ordering::AcqRel);
        self.instance.running.fetch_sub(1, Ordering::AcqRel);
        self.shared.activity.send_replace(());
    }
}

/// The body of an answer: the call runs until it has passed, and must have passed before the deadline.
pub(super) struct AnswerBody {
    body: Body,
    call: HttpCall,
    life: u64,
    deadline: Option<Pin<Box<Sleep>>>,
}

impl AnswerBody {
    pub(super) fn new(body: Body, call: HttpCall, life: u64, deadline: Option<Instant>) -> Self {
        let deadline = deadline.map(|at| Box::pin(tokio::time::sleep_until(at)));
        Self { body, call, life, deadline }
    }
}

impl hyper::body::Body for AnswerBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        let is_late = frame.is_pending()
            && self.deadline.as_mut().is_some_and(|deadline| deadline.as_mut().poll(context).is_ready());
        if !is_late {
            return frame;
        }
        // The timer has fired and must not be asked again.
        self.deadline = None;
        self.call.timed_out(self.life);
        Poll::Ready(Some(Err(axum::Error::new(std::io::Error::from(ErrorKind::TimedOut)))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
