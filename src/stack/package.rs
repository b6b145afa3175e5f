//! The `azureiothub` package of Cloud and Enterprise
//! (`TheThingsIndustries/lorawan-stack-docs doc/data/api/ttn.lorawan.v3/services/AzureIoTHubService.yml`).

use reqwest::Method;
use serde_json::{Value, json};

use super::client::{Server, Stack};
use super::error::StackError;
use crate::ids::DeviceId;

impl Stack {
    /// An event of a device as the package takes it.
    #[must_use]
    pub fn package_event(&self, device: &DeviceId, body: &Value, properties: &Value) -> Value {
        json!({
            "end_device_ids": {
                "device_id": device.as_str(),
                "application_ids": {"application_id": self.application.as_str()},
            },
            "body": body,
            "properties": properties,
        })
    }

    /// Posts events to the `azureiothub` package, one call each, in order, up to the first that fails: in a common call one bad
    /// event would fail all.
    ///
    /// # Errors
    /// If an event is refused or the server does not answer; the events before it are taken.
    pub async fn submit_events(&self, events: Vec<Value>) -> Result<(), StackError> {
        for event in events {
            let what = match event["end_device_ids"]["device_id"].as_str() {
                Some(device) => format!("posting an event of `{device}` to the package azureiothub"),
                None => "posting an event to the package azureiothub".to_owned(),
            };
            let body = json!({"events": [event]});
            self.call(Method::POST, (Server::Application, "packages/azureiothub/events"), Some(&body), &what).await?;
        }
        Ok(())
    }
}
