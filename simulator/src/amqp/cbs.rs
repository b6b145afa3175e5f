//! `$cbs`, where tokens are put (`Azure/azure-sdk-for-python sdk/eventhub/azure-eventhub/azure/eventhub/_pyamqp/cbs.py`).

use std::sync::Arc;

use fe2o3_amqp_types::messaging::{AmqpValue, Body};
use fe2o3_amqp_types::primitives::Value;

use super::grants::{Grants, Refused};
use super::requests::{Outcome, field, refuse};
use super::service::{AnyMessage, Credentials, Node, Service};

pub(super) const NAME: &str = "$cbs";

/// The node, for a link of either direction.
pub(super) fn node(receives: bool, services: &Arc<[Arc<dyn Service>]>) -> Node {
    if receives {
        return Node::Replies { name: NAME };
    }
    let services = services.clone();
    Node::Asks { name: NAME, answer: Arc::new(move |request, grants| put_token(request, &services, grants)) }
}

fn put_token(request: &AnyMessage, services: &[Arc<dyn Service>], grants: &Grants) -> Outcome {
    if field(request, "operation") != Some("put-token") {
        return refuse(400, "the operation of $cbs is put-token");
    }
    let Some(audience) = field(request, "name") else { return refuse(400, "name is missing") };
    let Body::Value(AmqpValue(Value::String(token))) = &request.body else {
        return refuse(400, "the body must be the token");
    };
    let credentials = Credentials::put(token, audience);
    // The brokers share the door, so each is asked. Most know nothing of the token; who knows more tells the client why.
    let mut why = Refused::Malformed;
    for service in services {
        match service.check(&credentials) {
            Ok(grant) => return grants.add(grant).map_or_else(refused, |()| accept(service.accepted())),
            Err(other) if other.rank() > why.rank() => why = other,
            Err(_) => {}
        }
    }
    refused(why)
}

fn accept((code, text): (i32, &str)) -> Outcome {
    (code, text.to_owned(), Value::Null)
}

fn refused(why: Refused) -> Outcome {
    match why {
        Refused::TooMany => refuse(403, Refused::TooMany.to_string()),
        Refused::LocalAuthDisabled => refuse(401, Refused::LocalAuthDisabled.to_string()),
        why => refuse(401, format!("InvalidToken: {why}")),
    }
}
