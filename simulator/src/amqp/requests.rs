//! Links that ask and links that answer, as `$cbs` and `$management` use them.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use fe2o3_amqp::link::{RecvError, SendError};
use fe2o3_amqp::{Receiver, Sender};
use fe2o3_amqp_types::messaging::{AmqpValue, ApplicationProperties, Body, Message, Properties};
use fe2o3_amqp_types::primitives::{OrderedMap, SimpleValue, Value};
use tokio::sync::{Notify, mpsc};

use super::grants::Grants;
use super::service::{Answerer, AnyMessage};

type Answer = Message<AmqpValue<Value>>;

/// Status code, description, body.
pub(crate) type Outcome = (i32, String, Value);

/// How long an answer waits for the link that it is to go on.
const LINK_TIME: Duration = Duration::from_secs(10);
/// A client asks one thing after another.
const ANSWERS_WAITING: usize = 16;

/// A node, and the address that requests name in reply-to.
type ReplyAddress = (&'static str, Option<String>);

/// The links of a session on which answers go.
#[derive(Debug, Default)]
pub(super) struct Replies {
    links: Mutex<HashMap<ReplyAddress, mpsc::Sender<Answer>>>,
    added: Notify,
}

impl Replies {
    fn add(&self, node: &'static str, address: Option<String>) -> mpsc::Receiver<Answer> {
        let (sender, receiver) = mpsc::channel(ANSWERS_WAITING);
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        // What has ended is forgotten, so that the map stays as large as the session's links.
        links.retain(|_, link| !link.is_closed());
        // Python's library names no reply-to: the newest link of the node serves then.
        links.insert((node, None), sender.clone());
        links.insert((node, address), sender);
        self.added.notify_waiters();
        receiver
    }

    fn to(&self, node: &'static str, address: Option<String>) -> Option<mpsc::Sender<Answer>> {
        let links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        links.get(&(node, address)).or_else(|| links.get(&(node, None))).cloned()
    }

    /// The link for an answer. It may still be on its way: `azure-iot-hub` of Python asks as soon as it may send, whether or not
    /// the link for the answer is attached (`Azure/azure-uamqp-c src/cbs.c`, `src/amqp_management.c`).
    async fn wait_for(&self, node: &'static str, address: Option<String>) -> Option<mpsc::Sender<Answer>> {
        let attached = async {
            loop {
                let added = self.added.notified();
                if let Some(link) = self.to(node, address.clone()) {
                    return link;
                }
                added.await;
            }
        };
        tokio::time::timeout(LINK_TIME, attached).await.ok()
    }
}

/// Sends answers on the link of a client that asks.
pub(super) async fn reply(mut link: Sender, node: &'static str, replies: &Replies) -> Result<(), SendError> {
    let address = link.target().as_ref().and_then(|target| target.address.clone());
    let mut answers = replies.add(node, address);
    loop {
        tokio::select! {
            answer = answers.recv() => match answer {
                Some(answer) => {
                    // Batchable is the last field of a transfer: with it set, no field before it is left out (see `padding`).
                    link.send_batchable(answer).await?.await?;
                }
                None => return Ok(()),
            },
            error = link.on_detach() => return Err(error.into()),
        }
    }
}

/// Answers requests until the link ends.
pub(super) async fn serve(
    mut link: Receiver,
    node: &'static str,
    answerer: &Answerer,
    grants: &Grants,
    replies: &Replies,
) -> Result<(), RecvError> {
    loop {
        let delivery = link.recv::<Body<Value>>().await?;
        if let Err(error) = link.accept(&delivery).await {
            tracing::debug!(%error, "a request could not be settled");
        }
        let mut request = delivery.into_message();
        let properties = request.properties.take().unwrap_or_default();
        let outcome = answerer(&request, grants);
        match replies.wait_for(node, properties.reply_to.clone()).await {
            Some(link) => {
                if link.send(answer(properties, outcome)).await.is_err() {
                    tracing::debug!(node, "the link for the answer is gone");
                }
            }
            None => tracing::debug!(node, "no link for the answer"),
        }
    }
}

fn answer(request: Properties, (code, text, body): Outcome) -> Answer {
    let mut properties = OrderedMap::new();
    properties.insert("status-code".to_owned(), SimpleValue::Int(code));
    properties.insert("status-description".to_owned(), SimpleValue::String(text));
    Message {
        header: None,
        delivery_annotations: None,
        message_annotations: None,
        properties: Some(Properties { correlation_id: request.message_id, ..Properties::default() }),
        application_properties: Some(ApplicationProperties(properties)),
        body: AmqpValue(body),
        footer: None,
    }
}

/// An answer that says no.
pub(crate) fn refuse(code: i32, text: impl Into<String>) -> Outcome {
    (code, text.into(), Value::Null)
}

/// A text in the application properties of a request.
pub(crate) fn field<'a>(request: &'a AnyMessage, name: &str) -> Option<&'a str> {
    match request.application_properties.as_ref()?.0.get(name)? {
        SimpleValue::String(text) => Some(text),
        SimpleValue::Symbol(text) => Some(text.as_str()),
        SimpleValue::Binary(bytes) => std::str::from_utf8(bytes).ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_answer_waits_for_its_link_but_not_for_ever() {
        let replies = Replies::default();
        let (found, _link) = tokio::join!(replies.wait_for("$cbs", None), async {
            tokio::task::yield_now().await;
            replies.add("$cbs", Some("me".to_owned()))
        });
        assert!(found.is_some());
        assert!(replies.wait_for("$management", None).await.is_none());
    }
}
