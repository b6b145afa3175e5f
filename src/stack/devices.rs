//! Register and delete an end device on the four servers that each know a part of it
//! (`TheThingsNetwork/lorawan-stack cmd/ttn-lw-cli/commands/end_devices.go`).

use futures::future::join_all;
use reqwest::Method;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};

use super::client::{Server, Stack};
use super::error::{Conflict, StackError};
use super::registration::Registration;
use crate::failure::Class;
use crate::ids::{DeviceId, Eui};

/// An end device that nobody registers.
const PROBE: &str = "tts-iot-hub-probe";

impl Stack {
    /// Registers an end device on Identity, Join, Network and Application Server, in that order; completes a half-done
    /// registration. What was created is deleted again when a later server refuses the device for good.
    ///
    /// # Errors
    /// If the device belongs to someone else, is refused, or a server does not answer.
    pub async fn register(&self, device: &Registration) -> Result<(), StackError> {
        let created = self.create_identity(device).await?;
        let outcome = self.set_on_the_other_servers(device).await;
        let Err(failure) = outcome else { return Ok(()) };
        if created
            && failure.class() == Class::Poison
            && let Err(error) = self.delete(&device.id).await
        {
            tracing::warn!(device = %device.id, %error, "a refused registration could not be undone");
        }
        Err(failure)
    }

    async fn set_on_the_other_servers(&self, device: &Registration) -> Result<(), StackError> {
        if device.has_root_keys() {
            self.set(device, Server::Join, &join_server(device, self.server_address())).await?;
        }
        self.set(device, Server::Network, &network_server(device)).await?;
        self.set(device, Server::Application, &application_server(device)).await
    }

    /// Whether it was created here and now; `false` if it existed with the same EUIs.
    async fn create_identity(&self, device: &Registration) -> Result<bool, StackError> {
        if !device.has_root_keys() {
            return self.compare_euis(device, Conflict::KeysMissing).await.map(|()| false);
        }
        let what = format!("registering `{}` on the Identity Server", device.id);
        let body = identity_server(device, self.server_address());
        match self.call(Method::POST, (Server::Identity, "devices"), Some(&body), &what).await {
            Ok(_) => Ok(true),
            Err(error) if error.is_taken() => self.compare_euis(device, Conflict::EuisTaken).await.map(|()| false),
            Err(error) => Err(error),
        }
    }

    async fn compare_euis(&self, device: &Registration, if_unknown: Conflict) -> Result<(), StackError> {
        let conflict = |conflict| Err(StackError::Conflict { device: device.id.clone(), conflict });
        match self.euis(&device.id).await? {
            Some(euis) if euis == (Some(device.dev_eui), Some(device.join_eui)) => Ok(()),
            Some(_) => conflict(Conflict::IdTaken),
            None => conflict(if_unknown),
        }
    }

    /// DevEUI and JoinEUI of a device; `None` if the Identity Server does not know it.
    async fn euis(&self, id: &DeviceId) -> Result<Option<(Option<Eui>, Option<Eui>)>, StackError> {
        let what = format!("reading `{id}` on the Identity Server");
        match self.call(Method::GET, (Server::Identity, &format!("devices/{id}")), None, &what).await {
            Ok(device) => {
                let eui = |name: &str| device["ids"][name].as_str().and_then(|text| Eui::parse(text).ok());
                Ok(Some((eui("dev_eui"), eui("join_eui"))))
            }
            Err(error) if error.is_device_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether each of the four servers answers for itself: asked for a device that nobody has, it says so. An outage, a refused
    /// key and a proxy that answers in its place are none.
    pub async fn answers(&self) -> bool {
        let servers = [Server::Identity, Server::Join, Server::Network, Server::Application];
        join_all(servers.map(|server| self.server_answers(server))).await.into_iter().all(|answers| answers)
    }

    async fn server_answers(&self, server: Server) -> bool {
        let what = format!("asking whether the {server:?} Server answers");
        match self.call(Method::GET, (server, &format!("devices/{PROBE}")), None, &what).await {
            Ok(_) => true,
            Err(error) if is_named_404(&error) => true,
            Err(error) => {
                tracing::debug!(%error, "no answer of its own");
                false
            }
        }
    }

    async fn set(&self, device: &Registration, server: Server, body: &Value) -> Result<(), StackError> {
        let what = format!("registering `{}` on the {server:?} Server", device.id);
        self.call(Method::PUT, (server, &format!("devices/{}", device.id)), Some(body), &what).await.map(drop)
    }

    /// Deletes an end device from Application, Network, Join and Identity Server, in that order; one that is gone already is
    /// fine. The Identity Server comes last so that a run that was cut short can be repeated.
    ///
    /// # Errors
    /// If a server refuses or does not answer.
    pub async fn delete(&self, device: &DeviceId) -> Result<(), StackError> {
        for server in [Server::Application, Server::Network, Server::Join, Server::Identity] {
            let what = format!("deleting `{device}` on the {server:?} Server");
            match self.call(Method::DELETE, (server, &format!("devices/{device}")), None, &what).await {
                Ok(_) => {}
                Err(error) if is_named_404(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// A 404 without a name would be a wrong address.
fn is_named_404(error: &StackError) -> bool {
    error.status() == Some(404) && error.name().is_some()
}

fn ids(device: &Registration) -> Value {
    json!({
        "device_id": device.id.as_str(),
        "dev_eui": device.dev_eui.to_string(),
        "join_eui": device.join_eui.to_string(),
    })
}

fn identity_server(device: &Registration, address: &str) -> Value {
    let mut end_device = json!({
        "ids": ids(device),
        "join_server_address": address,
        "network_server_address": address,
        "application_server_address": address,
    });
    if let Some(version_ids) = &device.version_identifiers {
        end_device["version_ids"] = version_ids.to_json();
    }
    json!({"end_device": end_device})
}

fn join_server(device: &Registration, address: &str) -> Value {
    let mut root_keys = json!({});
    let mut paths = vec!["network_server_address", "application_server_address"];
    let keys =
        [("app_key", "root_keys.app_key.key", &device.app_key), ("nwk_key", "root_keys.nwk_key.key", &device.nwk_key)];
    for (name, path, key) in keys {
        if let Some(key) = key {
            root_keys[name] = json!({"key": key.expose_secret()});
            paths.push(path);
        }
    }
    json!({
        "end_device": {
            "ids": ids(device),
            "network_server_address": address,
            "application_server_address": address,
            "root_keys": root_keys,
        },
        "field_mask": {"paths": paths},
    })
}

fn network_server(device: &Registration) -> Value {
    json!({
        "end_device": {
            "ids": ids(device),
            "supports_join": true,
            "lorawan_version": device.lorawan_version,
            "lorawan_phy_version": device.regional_parameters_version,
            "frequency_plan_id": device.frequency_plan_id,
        },
        "field_mask": {"paths": ["supports_join", "lorawan_version", "lorawan_phy_version", "frequency_plan_id"]},
    })
}

/// The repository's formatters where the repository knows the device; else the application's default stays in force, which any
/// `formatters` object would override (`TheThingsNetwork/lorawan-stack pkg/applicationserver/payload.go`).
fn application_server(device: &Registration) -> Value {
    let mut end_device = json!({"ids": ids(device)});
    let mut paths = vec!["ids.dev_eui", "ids.join_eui"];
    if let Some(version_ids) = &device.version_identifiers {
        end_device["version_ids"] = version_ids.to_json();
        end_device["formatters"] =
            json!({"up_formatter": "FORMATTER_REPOSITORY", "down_formatter": "FORMATTER_REPOSITORY"});
        paths.extend(["version_ids", "formatters.up_formatter", "formatters.down_formatter"]);
    }
    json!({"end_device": end_device, "field_mask": {"paths": paths}})
}
