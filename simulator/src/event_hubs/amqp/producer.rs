//! The link of a producer.

use std::sync::atomic::Ordering;

use fe2o3_amqp::Receiver;
use fe2o3_amqp::link::RecvError;
use fe2o3_amqp_types::definitions::{AmqpError, Error, ErrorCondition};
use fe2o3_amqp_types::messaging::Body;
use fe2o3_amqp_types::primitives::{Symbol, Value};

use super::connection::error;
use super::{Broker, Fault, message};
use crate::event_hubs::EventHub;

/// Takes events until the link ends.
pub(super) async fn serve(
    mut link: Receiver,
    hub: &EventHub,
    partition: Option<usize>,
    broker: &Broker,
) -> Result<(), RecvError> {
    loop {
        let delivery = link.recv::<Body<Value>>().await?;
        let format = (*delivery.message_format()).unwrap_or(0);
        let (info, message) = delivery.into_parts();
        let settled = match store(format, message, hub, partition, broker) {
            Ok(()) => link.accept(info).await,
            Err(why) => link.reject(info, why).await,
        };
        if let Err(error) = settled {
            tracing::debug!(%error, "an event could not be settled");
        }
    }
}

fn store(
    format: u32,
    message: message::AnyMessage,
    hub: &EventHub,
    partition: Option<usize>,
    broker: &Broker,
) -> Result<(), Error> {
    match *broker.fault.borrow() {
        Fault::RejectSends => {
            return Err(error(AmqpError::InternalError, "The service was unable to process the request."));
        }
        Fault::Busy => {
            let busy = ErrorCondition::Custom(Symbol::from("com.microsoft:server-busy"));
            return Err(error(busy, "The request was terminated because the entity is being throttled."));
        }
        Fault::None | Fault::Refuse | Fault::Silent => {}
    }
    let events =
        message::events(format, message).map_err(|unreadable| error(AmqpError::DecodeError, unreadable.to_string()))?;
    for event in events {
        match partition {
            Some(partition) => {
                hub.append_to(partition, event);
            }
            None => {
                hub.append(event);
            }
        }
        broker.received.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}
