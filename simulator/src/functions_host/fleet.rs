//! Instances: each a handler of its own, as the platform scales them.
//!
//! On a machine of one's own there is one instance with all functions. Flex Consumption scales by function: all HTTP
//! functions are one group, every other function is a group of its own, and each instance serves one group.
//! Source: `MicrosoftDocs/azure-docs` `flex-consumption-plan.md`, "Per-function scaling".

use std::collections::BTreeMap;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::function::Function;
use super::handler::Handler;

/// One handler and what runs on it.
pub(super) struct Instance {
    pub(super) handler: Handler,
    /// Changes when the instance is lost: running batches are forgotten.
    pub(super) lost: watch::Sender<()>,
    /// The instance ends now.
    pub(super) stop: CancellationToken,
    /// Whether its end is the end of the host.
    pub(super) is_common: bool,
    pub(super) running: AtomicUsize,
}

impl Instance {
    pub(super) fn new(handler: Handler, stop: CancellationToken, is_common: bool) -> Self {
        Self { handler, lost: watch::Sender::new(()), stop, is_common, running: AtomicUsize::new(0) }
    }

    /// Kills the handler; another takes its place at once, with nothing but the checkpoints.
    pub(super) fn lose(&self) {
        self.handler.lose();
        self.lost.send_replace(());
    }
}

#[derive(Default)]
struct Group {
    instances: Vec<Arc<Instance>>,
    /// Counts calls: each goes to the next instance.
    calls: usize,
    /// Counts losses: with each, every partition goes to the next instance.
    losses: usize,
}

/// All instances.
pub(super) struct Fleet {
    common: Arc<Instance>,
    groups: Mutex<BTreeMap<String, Group>>,
}

/// The name of the group that a function scales with.
pub(super) fn group_of(function: &Function) -> &str {
    if function.is_http() { "http" } else { &function.name }
}

impl Fleet {
    pub(super) fn new(common: Instance) -> Self {
        Self { common: Arc::new(common), groups: Mutex::default() }
    }

    /// The instance that serves every function that was not scaled.
    pub(super) fn common(&self) -> &Arc<Instance> {
        &self.common
    }

    /// All instances of a group; the common one if it was not scaled.
    pub(super) fn of(&self, group: &str) -> Vec<Arc<Instance>> {
        self.with(group, |group| group.instances.clone()).unwrap_or_else(|| vec![Arc::clone(&self.common)])
    }

    /// Where the next HTTP call goes: to one after the other.
    pub(super) fn for_call(&self) -> Arc<Instance> {
        let next = self.with("http", |group| {
            group.calls = group.calls.wrapping_add(1);
            Arc::clone(&group.instances[group.calls % group.instances.len()])
        });
        next.unwrap_or_else(|| Arc::clone(&self.common))
    }

    /// The owner of a partition. With fewer partitions than instances some own nothing.
    pub(super) fn for_partition(&self, function: &str, partition: usize) -> Arc<Instance> {
        let owner = self.with(function, |group| {
            Arc::clone(&group.instances[partition.wrapping_add(group.losses) % group.instances.len()])
        });
        owner.unwrap_or_else(|| Arc::clone(&self.common))
    }

    /// Sets the instances of a group and returns those that are no longer in it. There must be one at least.
    pub(super) fn set(&self, group: &str, instances: Vec<Arc<Instance>>) -> Vec<Arc<Instance>> {
        let mut groups = self.groups.lock().unwrap_or_else(PoisonError::into_inner);
        let group = groups.entry(group.to_owned()).or_default();
        let before = std::mem::replace(&mut group.instances, instances);
        before.into_iter().filter(|old| !group.instances.iter().any(|kept| Arc::ptr_eq(kept, old))).collect()
    }

    /// Loses one instance of a group. Its partitions go to another one if there is one.
    pub(super) fn lose(&self, group: &str, index: usize) -> bool {
        let lost = self.with(group, |group| {
            let lost = group.instances.get(index).cloned();
            group.losses = group.losses.wrapping_add(usize::from(lost.is_some()));
            lost
        });
        let lost = match lost {
            Some(lost) => lost,
            None => (index == 0).then(|| Arc::clone(&self.common)),
        };
        if let Some(instance) = &lost {
            instance.lose();
        }
        lost.is_some()
    }

    fn with<T>(&self, name: &str, read: impl FnOnce(&mut Group) -> T) -> Option<T> {
        let mut groups = self.groups.lock().unwrap_or_else(PoisonError::into_inner);
        groups.get_mut(name).filter(|group| !group.instances.is_empty()).map(read)
    }
}
