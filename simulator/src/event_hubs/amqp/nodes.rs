//! What a namespace contributes to the doors: its tokens and its nodes.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use fe2o3_amqp_types::definitions::{AmqpError, Error, ErrorCondition};
use fe2o3_amqp_types::primitives::{Symbol, Value};
use time::OffsetDateTime;

use super::address::{Address, Entity};
use super::consumer::{self, Consumer};
use super::management;
use super::producer::{self, Producer};
use super::readers::{Readers, Seat};
use super::sas::{self, SasPolicy};
use crate::amqp::{
    Attaching, Credentials, Grant, Grants, LinkRight, Node, Outside, Refused, Scope, Service, error, path,
};
use crate::entra::{EVENT_HUBS, Entra};
use crate::event_hubs::{Claim, EventHub, Namespace};

/// The grants of this broker.
const REALM: &str = "event hubs";
/// Link property of a consumer that wants to be the owner
/// (`Azure/azure-sdk-for-python sdk/eventhub/azure-eventhub/azure/eventhub/_constants.py`).
const EPOCH: &str = "com.microsoft:epoch";
/// Desired capability of a consumer that wants to know how far it is behind (same file).
const RUNTIME_METRIC: &str = "com.microsoft:enable-receiver-runtime-metric";

/// The namespace behind the doors.
#[derive(Debug)]
pub(super) struct Broker {
    pub(super) namespace: Namespace,
    pub(super) policies: Vec<SasPolicy>,
    /// Policies of the hub, for its built-in endpoint.
    pub(super) hub_policies: Vec<SasPolicy>,
    pub(super) entra: Entra,
    pub(super) outside: Arc<Outside>,
    pub(super) readers: Arc<Readers>,
    pub(super) received: AtomicU64,
    pub(super) sent: AtomicU64,
}

/// The broker as the doors know it.
#[derive(Debug)]
pub(super) struct Nodes(pub(super) Arc<Broker>);

/// A path of this broker.
pub(super) fn scope(path: &str) -> Scope {
    Scope::new(REALM, path)
}

impl Service for Nodes {
    fn check(&self, credentials: &Credentials<'_>) -> Result<Grant, Refused> {
        match *credentials {
            Credentials::Sas { token, audience } => {
                self.by_key(|policies, _| sas::check(token, audience, policies, OffsetDateTime::now_utc()))
            }
            Credentials::Jwt { token, audience } => {
                let claims =
                    self.0.entra.check(token, EVENT_HUBS).map_err(|error| Refused::Token(error.to_string()))?;
                let scope = scope(path(audience));
                Ok(Grant { scope, principal: Some(claims.sub), expires_at: claims.exp })
            }
            Credentials::Plain { user, password } => self.by_key(|policies, whole| {
                let known = policies.iter().any(|policy| policy.name == user && policy.key == password);
                let grant = Grant { scope: whole, principal: None, expires_at: i64::MAX };
                if known { Ok(grant) } else { Err(Refused::Signature) }
            }),
        }
    }

    fn node(&self, link: &Attaching<'_>, grants: &Arc<Grants>) -> Option<Result<Node, Error>> {
        match Address::parse(link.address)? {
            Address::Management => Some(Ok(management::node(link.receives, &self.0))),
            Address::Entity(entity) => Some(self.entity(&entity, link, grants)),
        }
    }
}

impl Nodes {
    /// What a key opens: one of the hub its built-in endpoint, one of the namespace the rest. `check` is given policies, and all
    /// that they are for.
    fn by_key(&self, check: impl Fn(&[SasPolicy], Scope) -> Result<Grant, Refused>) -> Result<Grant, Refused> {
        let Broker { namespace, policies, hub_policies, .. } = &*self.0;
        if let Some(built_in) = namespace.built_in_endpoint().map(scope)
            && let Ok(grant) = check(hub_policies, built_in.clone())
            && built_in.covers(&grant.scope)
        {
            return Ok(grant);
        }
        let grant = check(policies, scope(""))?;
        if namespace.takes_keys() { Ok(grant) } else { Err(Refused::LocalAuthDisabled) }
    }

    fn entity(&self, entity: &Entity, link: &Attaching<'_>, grants: &Arc<Grants>) -> Result<Node, Error> {
        let broker = &self.0;
        let scope = scope(path(link.address));
        let (claim, group) = if link.receives { (Claim::Listen, entity.group.as_deref()) } else { (Claim::Send, None) };
        let may = {
            let (broker, hub, group) = (broker.clone(), entity.hub.clone(), group.map(str::to_owned));
            move |principal: &str| broker.namespace.permits(principal, claim, &hub, group.as_deref())
        };
        if let Err(why) = grants.opens(&scope, &may) {
            broker.namespace.tell(why.as_ref());
            return Err(unauthorized(claim, path(link.address)));
        }
        let right = LinkRight::new(grants.clone(), scope, move |principal| may(principal).is_ok());
        let hub = broker.namespace.hub(&entity.hub).ok_or_else(|| not_found(&entity.hub))?;
        let partition = entity.partition.as_deref().map(|id| self::partition(&hub, id)).transpose()?;
        let broker = broker.clone();
        match (link.receives, partition, &entity.group) {
            (false, partition, None) => {
                let producer = Producer { broker, hub, partition, right };
                Ok(Node::Takes(Box::new(|link| Box::pin(producer::serve(link, producer)))))
            }
            (true, Some(partition), Some(group)) => {
                if !broker.namespace.has_consumer_group(&entity.hub, group) {
                    return Err(not_found(&format!("{}:consumergroup:{group}", hub.name())));
                }
                // Found out before the attach is answered, so that a client may rely on what `@latest` means.
                let next = consumer::start(link.attach.source.as_deref())?.sequence_number(&hub, partition);
                let seat = Seat { hub: hub.name().to_owned(), group: group.to_ascii_lowercase(), partition };
                let place = broker.readers.sit(seat, epoch(link)?)?;
                let metric = wants_metric(link);
                let consumer = Consumer { broker, hub, partition, next, right, place, metric };
                Ok(Node::Gives(Box::new(|link| Box::pin(consumer::serve(link, consumer)))))
            }
            _ => Err(error(AmqpError::NotAllowed, "the entity cannot be used in this direction")),
        }
    }
}

/// The service's sentence (`Azure/azure-event-hubs-python#4`); the host is whatever name the client knows it by.
fn unauthorized(claim: Claim, path: &str) -> Error {
    let text = format!(
        "Unauthorized access. '{}' claim(s) are required to perform this operation. Resource: 'sb://simulated/{}'. \
         TrackingId:{}_G0, SystemTracker:gateway5, Timestamp:{}",
        claim.name(),
        path.to_ascii_lowercase(),
        uuid::Uuid::new_v4().simple(),
        OffsetDateTime::now_utc().format(&time::format_description::well_known::Rfc3339).unwrap_or_default()
    );
    error(AmqpError::UnauthorizedAccess, text)
}

fn epoch(link: &Attaching<'_>) -> Result<Option<i64>, Error> {
    let properties = link.attach.properties.as_ref();
    let epoch = match properties.and_then(|properties| properties.get(&Symbol::from(EPOCH))) {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Long(epoch)) => Some(*epoch),
        Some(Value::Int(epoch)) => Some(i64::from(*epoch)),
        Some(Value::Byte(epoch)) => Some(i64::from(*epoch)),
        Some(Value::Short(epoch)) => Some(i64::from(*epoch)),
        Some(Value::Ubyte(epoch)) => Some(i64::from(*epoch)),
        Some(Value::Uint(epoch)) => Some(i64::from(*epoch)),
        Some(Value::Ulong(epoch)) => i64::try_from(*epoch).ok(),
        Some(_) => None,
    };
    let epoch = epoch.filter(|epoch| *epoch >= 0);
    epoch.map(Some).ok_or_else(|| out_of_range("The epoch of a receiver must be a whole number from 0 on."))
}

fn wants_metric(link: &Attaching<'_>) -> bool {
    let desired = link.attach.desired_capabilities.as_ref();
    desired.is_some_and(|desired| desired.iter().any(|Symbol(name)| name == RUNTIME_METRIC))
}

fn out_of_range(text: impl Into<String>) -> Error {
    error(ErrorCondition::Custom(Symbol::from("com.microsoft:argument-out-of-range")), text)
}

/// The index of a partition id.
pub(super) fn partition(hub: &EventHub, id: &str) -> Result<usize, Error> {
    let index = id.parse().ok().filter(|index| *index < hub.partition_count());
    index.ok_or_else(|| {
        out_of_range(format!(
            "The specified partition is invalid for an EventHub partition sender or receiver. It should be between 0 and {}: {id}",
            hub.partition_count() - 1
        ))
    })
}

fn not_found(name: &str) -> Error {
    error(AmqpError::NotFound, format!("The messaging entity '{name}' could not be found."))
}
