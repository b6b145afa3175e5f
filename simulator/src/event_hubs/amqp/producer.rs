//! The link of a producer.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use fe2o3_amqp::Receiver;
use fe2o3_amqp::link::RecvError;
use fe2o3_amqp_types::definitions::{AmqpError, Error, ErrorCondition};
use fe2o3_amqp_types::messaging::Body;
use fe2o3_amqp_types::primitives::{Symbol, Value};

use super::message;
use super::nodes::Broker;
use crate::amqp::{AnyMessage, Fault, LinkRight, error};
use crate::event_hubs::EventHub;

/// Where a producer sends to, and by what right.
pub(super) struct Producer {
    pub(super) broker: Arc<Broker>,
    pub(super) hub: Arc<EventHub>,
    pub(super) partition: Option<usize>,
    pub(super) right: LinkRight,
}

/// Takes events until the link or its token ends.
pub(super) async fn serve(mut link: Receiver, producer: Producer) {
    let ended = tokio::select! {
        Err(ended) = producer.take(&mut link) => Err(ended),
        why = producer.right.end() => Ok(why),
    };
    match ended {
        Ok(why) => {
            if let Err(error) = link.close_with_error(why).await {
                tracing::debug!(%error, "a producer was gone before it was sent away");
            }
        }
        Err(reason) => tracing::debug!(%reason, "a producer ended"),
    }
}

impl Producer {
    async fn take(&self, link: &mut Receiver) -> Result<(), RecvError> {
        loop {
            let delivery = link.recv::<Body<Value>>().await?;
            let format = (*delivery.message_format()).unwrap_or(0);
            let (info, message) = delivery.into_parts();
            let settled = match self.store(format, message) {
                Ok(()) => link.accept(info).await,
                Err(why) => link.reject(info, why).await,
            };
            if let Err(error) = settled {
                tracing::debug!(%error, "an event could not be settled");
            }
        }
    }

    fn store(&self, format: u32, message: AnyMessage) -> Result<(), Error> {
        match *self.broker.outside.fault.borrow() {
            Fault::RejectSends => {
                return Err(error(AmqpError::InternalError, "The service was unable to process the request."));
            }
            Fault::Busy => {
                let busy = ErrorCondition::Custom(Symbol::from("com.microsoft:server-busy"));
                return Err(error(busy, "The request was terminated because the entity is being throttled."));
            }
            Fault::None | Fault::Refuse | Fault::Silent => {}
        }
        let events = message::events(format, message)
            .map_err(|unreadable| error(AmqpError::DecodeError, unreadable.to_string()))?;
        let count = events.len() as u64;
        // A batch is taken whole, into one partition.
        self.hub.append_batch(self.partition, events);
        self.broker.received.fetch_add(count, Ordering::Relaxed);
        Ok(())
    }
}
