//! Several instances of a function.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use tokio::task::JoinHandle;

use super::fleet::{Instance, group_of};
use super::handler::{Handler, supervise};
use super::host::{FunctionsHost, HTTP_DRAIN, drained, free_port};
use super::shared::Shared;

/// Instances of one group at most.
const MAX_INSTANCES: usize = 100;

impl FunctionsHost {
    /// Loses one of the instances that serve a function, without notice. Its partitions go to another instance of the
    /// function, which gets the batch under way once more; in its place another instance starts.
    ///
    /// `false` if the app has no such function or the function no such instance (they count from 0).
    #[must_use]
    pub fn lose_instance_of(&self, function: &str, index: usize) -> bool {
        let shared = &self.0.shared;
        let function = shared.app.functions.iter().find(|known| known.name == function);
        function.is_some_and(|function| shared.fleet.lose(group_of(function), index))
    }

    /// Gives a function this many instances, each with a handler of its own, as Flex Consumption does: all HTTP
    /// functions together are one group, every other function is its own.
    ///
    /// Until then all functions share the one common instance, which stays for those that were not scaled. HTTP calls
    /// go to one instance after the other. The partitions of an Event Hub are divided among the instances. Instances
    /// that are too many finish what they have begun, up to 30 s, before their handlers are killed.
    ///
    /// # Errors
    /// If the app has no such function, the number is not 1 to 100, no port is free, the host stopped, or the handler
    /// was started by hand, so that there can be only one.
    pub async fn scale(&self, function: &str, instances: usize) -> Result<(), ScaleError> {
        let shared = &self.0.shared;
        let known = shared.app.functions.iter().find(|known| known.name == function);
        let group = group_of(known.ok_or_else(|| ScaleError::Unknown(function.to_owned()))?);
        let launch = self.0.launch.as_ref().ok_or(ScaleError::ByHand)?;
        if !(1..=MAX_INSTANCES).contains(&instances) {
            return Err(ScaleError::Number(instances));
        }
        if shared.draining.is_cancelled() {
            return Err(ScaleError::Stopped);
        }
        let mut wanted = shared.fleet.of(group);
        wanted.retain(|instance| !instance.is_common);
        wanted.truncate(instances);
        while wanted.len() < instances {
            let (handler, wishes) = Handler::new(free_port().await.map_err(ScaleError::Port)?);
            let instance = Arc::new(Instance::new(handler, shared.stop.child_token(), false));
            let task = supervise(Arc::clone(shared), Arc::clone(&instance), launch.clone(), wishes);
            self.keep(tokio::spawn(task));
            wanted.push(instance);
        }
        for retired in shared.fleet.set(group, wanted) {
            self.keep(tokio::spawn(retire(Arc::clone(shared), retired)));
        }
        Ok(())
    }

    /// The processes of the handlers that serve a function, as far as they run.
    #[must_use]
    pub fn handler_pids(&self, function: &str) -> Vec<u32> {
        let shared = &self.0.shared;
        let function = shared.app.functions.iter().find(|known| known.name == function);
        let instances = function.map(|function| shared.fleet.of(group_of(function))).unwrap_or_default();
        instances.iter().filter_map(|instance| instance.handler.pid()).collect()
    }

    fn keep(&self, task: JoinHandle<()>) {
        let mut tasks = self.0.supervisors.lock().unwrap_or_else(PoisonError::into_inner);
        tasks.retain(|task| !task.is_finished());
        tasks.push(task);
    }
}

/// Why a function was not scaled.
#[derive(Debug, thiserror::Error)]
pub enum ScaleError {
    /// No such function.
    #[error("the function app has no function '{0}'")]
    Unknown(String),
    /// Not 1 to 100.
    #[error("a function can have 1 to {MAX_INSTANCES} instances, not {0}")]
    Number(usize),
    /// The only handler is none of the host's.
    #[error("the handler was started by hand; let the host start it to have several")]
    ByHand,
    /// The host takes nothing on.
    #[error("the host stopped")]
    Stopped,
    /// No port for a handler.
    #[error("no port is free for a handler: {0}")]
    Port(std::io::Error),
}

/// Ends an instance that nothing new comes to.
async fn retire(shared: Arc<Shared>, instance: Arc<Instance>) {
    drained(&shared, shared.pace.of(HTTP_DRAIN), || instance.running.load(Ordering::Acquire) == 0).await;
    instance.lost.send_replace(());
    instance.stop.cancel();
}
