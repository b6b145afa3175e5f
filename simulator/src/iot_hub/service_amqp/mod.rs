//! The nodes of the hub's service side over AMQP: cloud-to-device messages out, feedback back
//! (`MicrosoftDocs/azure-docs articles/iot-hub/iot-hub-devguide-messages-c2d.md`, `iot-hub-amqp-support.md`).
//!
//! | module | what it does |
//! |---|---|
//! | `cloud_message` | a message as a service sends it, and the errors it gets |
//! | `feedback` | who gets which feedback, and its form |

mod cloud_message;
mod feedback;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;

use fe2o3_amqp::link::RecvError;
use fe2o3_amqp::{Receiver, Sender};
use fe2o3_amqp_types::definitions::{AmqpError, Error};
use fe2o3_amqp_types::messaging::Body;
use fe2o3_amqp_types::primitives::Value;
use futures::future::BoxFuture;
use time::OffsetDateTime;

use super::sas::{SasError, Token};
use super::{CloudMessage, Feedback, HubError, IotHub};
use crate::amqp::{Attaching, Credentials, Grant, Grants, LinkRight, Node, Refused, Scope, Service, error, path};
use crate::entra::{Access, Entra, IOT_HUBS, actions};
use feedback::Outbox;

/// The grants of this broker.
const REALM: &str = "iot hub";
const DEVICEBOUND: &str = "messages/devicebound";
const FEEDBACK: &str = "messages/servicebound/feedback";
const FILE_NOTIFICATIONS: &str = "messages/servicebound/filenotifications";
/// Resources below the hub that a token may be limited to, the widest first.
const RESOURCES: [&str; 5] = ["", "messages", DEVICEBOUND, "messages/serviceBound", "messages/servicebound"];

/// What these nodes need of a hub.
pub(crate) trait Devicebound: fmt::Debug + Send + Sync + 'static {
    /// The time of the hub, which may be set wrong.
    fn now(&self) -> OffsetDateTime;
    /// Whether a shared access signature opens a path for services, or why it does not.
    fn token_opens(&self, token: &str, path: &str) -> Result<(), SasError>;
    /// Puts a message into the queue of a device.
    fn send<'a>(&'a self, device_id: &'a str, message: CloudMessage) -> BoxFuture<'a, Result<(), HubError>>;
    /// Waits for feedback and takes it.
    fn feedback(&self) -> BoxFuture<'_, Vec<Feedback>>;
}

impl Devicebound for IotHub {
    fn now(&self) -> OffsetDateTime {
        IotHub::now(self)
    }

    fn token_opens(&self, token: &str, path: &str) -> Result<(), SasError> {
        self.check_service_token(token, path)
    }

    fn send<'a>(&'a self, device_id: &'a str, message: CloudMessage) -> BoxFuture<'a, Result<(), HubError>> {
        Box::pin(self.send_to_device(device_id, message))
    }

    fn feedback(&self) -> BoxFuture<'_, Vec<Feedback>> {
        Box::pin(IotHub::feedback(self))
    }
}

/// The service side of a hub, as the AMQP doors know it.
#[derive(Debug)]
pub(crate) struct ServiceNodes<H> {
    hub: Arc<H>,
    entra: Entra,
    access: Access,
    outbox: Arc<Outbox<H>>,
}

impl ServiceNodes<IotHub> {
    /// The nodes of a hub that takes bearer tokens of this issuer.
    pub(crate) fn new(hub: IotHub, entra: Entra, access: Access) -> Self {
        Self { access, ..Self::of(hub, entra) }
    }
}

impl<H: Devicebound> ServiceNodes<H> {
    fn of(hub: H, entra: Entra) -> Self {
        let hub = Arc::new(hub);
        Self { outbox: Arc::new(Outbox::new(hub.clone())), hub, entra, access: Access::default() }
    }

    /// What a shared access signature opens; its own resource says where, whatever audience the client names.
    fn sas(&self, token: &str, policy: Option<&str>) -> Result<Grant, Refused> {
        let parsed = Token::parse(token).map_err(|_| Refused::Malformed)?;
        if policy.is_some() && policy != parsed.policy() {
            return Err(Refused::Signature);
        }
        let expires_at = i64::try_from(parsed.expiry()).unwrap_or(i64::MAX);
        let mut why = SasError::OutOfScope;
        for resource in RESOURCES {
            match self.hub.token_opens(token, resource) {
                Ok(()) => return Ok(self.grant(resource, expires_at)),
                // A narrower resource may be the one that the token is for.
                Err(SasError::OutOfScope) => {}
                Err(other) => why = other,
            }
        }
        Err(match why {
            SasError::Malformed(_) => Refused::Malformed,
            SasError::Expired => Refused::Expired(expires_at),
            SasError::OutOfScope => Refused::Audience(DEVICEBOUND.to_owned()),
            SasError::MissingRight(_) => Refused::Token(why.to_string()),
            SasError::UnknownPolicy | SasError::BadSignature => Refused::Signature,
        })
    }

    /// What a token opens that ends when the hub's clock shows `expires_at`. Grants end by the clock of the machine, so the skew
    /// of the moment is taken off; to set the hub's clock again later neither ends nor prolongs what is open already.
    fn grant(&self, resource: &str, expires_at: i64) -> Grant {
        let skew = self.hub.now().unix_timestamp() - OffsetDateTime::now_utc().unix_timestamp();
        Grant { scope: Scope::new(REALM, resource), principal: None, expires_at: expires_at.saturating_sub(skew) }
    }
}

impl<H: Devicebound> Service for ServiceNodes<H> {
    /// Node's library takes nothing else (`azure-iothub` 1.16.6, `common-amqp/amqp_cbs.js`).
    fn accepted(&self) -> (i32, &'static str) {
        (200, "OK")
    }

    fn check(&self, credentials: &Credentials<'_>) -> Result<Grant, Refused> {
        match *credentials {
            Credentials::Sas { token, .. } => self.sas(token, None),
            Credentials::Jwt { token, .. } => {
                let claims = self.entra.check(token, IOT_HUBS).map_err(|error| Refused::Token(error.to_string()))?;
                // Microsoft Entra and its tokens go by the clock of the machine.
                Ok(Grant { scope: Scope::new(REALM, ""), principal: Some(claims.sub), expires_at: claims.exp })
            }
            // `{policy}@sas.root.{hub}`; the token says which hub it is for.
            Credentials::Plain { user, password } => {
                let (policy, _) = user.split_once("@sas.root.").ok_or(Refused::Malformed)?;
                self.sas(password, Some(policy))
            }
        }
    }

    fn node(&self, link: &Attaching<'_>, grants: &Arc<Grants>) -> Option<Result<Node, Error>> {
        let place = path(link.address).to_ascii_lowercase();
        let scope = Scope::new(REALM, &place);
        let action = match (place.as_str(), link.receives) {
            (DEVICEBOUND, false) => actions::CLOUD_TO_DEVICE_SEND,
            (FEEDBACK, true) => actions::CLOUD_TO_DEVICE_FEEDBACK,
            (FILE_NOTIFICATIONS, true) => actions::FILE_NOTIFICATIONS,
            (DEVICEBOUND | FEEDBACK | FILE_NOTIFICATIONS, _) => {
                return Some(Err(error(AmqpError::NotAllowed, "the entity cannot be used in this direction")));
            }
            _ => return None,
        };
        let may = {
            let access = self.access.clone();
            move |principal: &str| access.allows(principal, &[action], "")
        };
        if let Err(why) = grants.opens(&scope, &may) {
            let text = match why {
                Some(denied) => {
                    self.access.tell(&denied);
                    denied.refusal("ATTACH", &format!("/{place}"))
                }
                None => "Unauthorized access: put a token with ServiceConnect at $cbs.".to_owned(),
            };
            return Some(Err(error(AmqpError::UnauthorizedAccess, text)));
        }
        let (hub, outbox) = (self.hub.clone(), self.outbox.clone());
        let right = LinkRight::new(grants.clone(), scope, move |principal| may(principal).is_ok());
        Some(Ok(match place.as_str() {
            DEVICEBOUND => Node::Takes(Box::new(|link| Box::pin(take(link, hub, right)))),
            FEEDBACK => Node::Gives(Box::new(|link| Box::pin(outbox.serve(link, right)))),
            _ => Node::Gives(Box::new(|link| Box::pin(stay_quiet(link, right)))),
        }))
    }
}

/// Takes messages for devices until the link or its token ends.
async fn take<H: Devicebound>(mut link: Receiver, hub: Arc<H>, right: LinkRight) {
    let ended = tokio::select! {
        Err(ended) = take_all(&mut link, &*hub) => Err(ended),
        why = right.end() => Ok(why),
    };
    match ended {
        Ok(why) => {
            if let Err(error) = link.close_with_error(why).await {
                tracing::debug!(%error, "a sender was gone before it was sent away");
            }
        }
        Err(reason) => tracing::debug!(%reason, "a sender of cloud-to-device messages ended"),
    }
}

async fn take_all<H: Devicebound>(link: &mut Receiver, hub: &H) -> Result<(), RecvError> {
    loop {
        let delivery = link.recv::<Body<Value>>().await?;
        let (info, message) = delivery.into_parts();
        let sent = match cloud_message::parse(message, hub.now()) {
            Ok((device_id, message)) => {
                hub.send(&device_id, message).await.map_err(|error| cloud_message::refusal(&error))
            }
            Err(why) => Err(why),
        };
        let settled = match sent {
            Ok(()) => link.accept(info).await,
            Err(why) => link.reject(info, why).await,
        };
        if let Err(error) = settled {
            tracing::debug!(%error, "a cloud-to-device message could not be settled");
        }
    }
}

/// Nobody uploads files here.
async fn stay_quiet(mut link: Sender, right: LinkRight) {
    let why = tokio::select! {
        ended = link.on_detach() => return tracing::debug!(%ended, "a receiver of file notifications ended"),
        why = right.end() => why,
    };
    if let Err(error) = link.close_with_error(why).await {
        tracing::debug!(%error, "a receiver was gone before it was sent away");
    }
}
