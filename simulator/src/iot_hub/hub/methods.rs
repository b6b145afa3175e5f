//! Direct methods: a call goes to the device, and its answer back to the service.

use tokio::sync::oneshot;
use tokio::time::timeout;

use super::Hub;
use crate::iot_hub::error::{Code, HubError};
use crate::iot_hub::methods::{MethodAnswer, MethodRequest};
use crate::iot_hub::sessions::NotCalled;

impl Hub {
    /// Calls a method of a device and waits for its answer.
    pub(in crate::iot_hub) async fn call_method(
        &self,
        id: &str,
        request: &MethodRequest,
    ) -> Result<MethodAnswer, HubError> {
        let answer = match timeout(request.connect_timeout, self.method_called(id, request)).await {
            Ok(called) => called?,
            Err(_) => return Err(HubError::new(Code::DeviceNotOnline, "Timed out waiting for device to connect.")),
        };
        self.counters.methods_called.add();
        match timeout(request.response_timeout, answer).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) => {
                Err(HubError::new(Code::GatewayTimeout, "the connection of the device ended before its answer"))
            }
            Err(_) => Err(HubError::new(Code::GatewayTimeout, "Timed out waiting for the response from device.")),
        }
    }

    /// Hands a call to the device as soon as it is connected and subscribed to calls.
    async fn method_called(
        &self,
        id: &str,
        request: &MethodRequest,
    ) -> Result<oneshot::Receiver<MethodAnswer>, HubError> {
        loop {
            let changed = self.came_online.notified();
            tokio::pin!(changed);
            // From here on no change is missed.
            changed.as_mut().enable();
            {
                let mut state = self.state();
                state.registry.known(id)?;
                match state.sessions.call(id, request) {
                    Ok(answer) => return Ok(answer),
                    Err(NotCalled::Busy) => {
                        let text = "too many calls wait for an answer of this device";
                        return Err(HubError::new(Code::ThrottlingException, text));
                    }
                    Err(NotCalled::Offline) => {}
                }
            }
            changed.await;
        }
    }

    /// Takes the answer of a device. Returns whether a caller took it: one that nobody waits for any longer is lost.
    pub(in crate::iot_hub) fn answer_method(&self, id: &str, connection: u64, rid: &str, answer: MethodAnswer) -> bool {
        let caller = self.state().sessions.take_call(id, connection, rid);
        let is_taken = caller.is_some_and(|caller| caller.send(answer).is_ok());
        if !is_taken {
            tracing::debug!(device = id, "an answer to a method call comes too late");
        }
        is_taken
    }
}
