#!/bin/sh
# Deploys the package that `cargo xtask package` built, at the end of `azd up` and `azd deploy`.
# Needs the Azure CLI, signed in: it sends the zip to the app as it is, with its mode bits, also on Flex Consumption
# (Azure/azure-cli src/azure-cli/azure/cli/command_modules/appservice/custom.py, enable_zip_deploy_flex).
set -eu
cd "$(dirname "$0")/.."

package=target/package/tts-iot-hub-linux-x64.zip
[ -f "$package" ] || cargo xtask package

app=$(azd env get-value functionAppName)
group=$(azd env get-value AZURE_RESOURCE_GROUP)

# A role that was assigned a minute ago may not be known everywhere yet: the app then can't store its package.
tries=6
until az functionapp deployment source config-zip --resource-group "$group" --name "$app" --src "$package" --output none; do
  tries=$((tries - 1))
  if [ "$tries" -eq 0 ]; then
    echo "the package could not be deployed; see the messages above, then run: azd deploy" >&2
    exit 1
  fi
  echo "trying again in 30 seconds ($tries tries left)" >&2
  sleep 30
done

azd env get-value nextStep
