#!/usr/bin/env bash
# Joins the bridge to an IoT Hub that is there already: adds one shared access policy, one identity, one endpoint
# and two routes to the hub, and deploys the rest beside it. Touches nothing else of the hub. Run it again at
# will: what is there already is left alone.
#
# Why not by template: policies, endpoints and routes are properties of the hub, and a template that names them
# would overwrite the owner's.
#
# Needs the Azure CLI, signed in (`az login`), with the extension azure-iot (it asks to install it).
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

# Names of what is ours in the hub.
policy=tts-iot-hub
endpoint=tts-iot-hub
deployment=tts-iot-hub

usage() {
  cat <<'USAGE'
usage: existing-hub.sh --hub NAME --hub-resource-group GROUP --resource-group GROUP [options]

  --hub NAME                   the IoT Hub
  --hub-resource-group GROUP   its resource group
  --resource-group GROUP       where the bridge goes; must exist
  --device-id-prefix PREFIX    devices of The Things Stack get ids that begin with PREFIX, and the bridge touches
                               no other device. Advised for a hub with other devices in it: the policy of the
                               bridge can speak as any device of the hub. Given once: --redeploy keeps it
  --redeploy                   deploy the bridge again although it is there
  --dry-run                    say what would be done, and do nothing

From the environment: STACK_CLUSTER_ADDRESS, STACK_APPLICATION_ID, STACK_API_KEY; optional: WEBHOOK_SECRET and
the others that main.bicepparam reads. Secrets are not taken as arguments: those show in lists of processes.
USAGE
}

fail() {
  printf 'existing-hub.sh: %s\n' "$*" >&2
  exit 1
}

hub='' hub_group='' group='' prefix=${DEVICE_ID_PREFIX:-} redeploy=false dry_run=false
while (($#)); do
  case $1 in
    --hub | --hub-resource-group | --resource-group | --device-id-prefix)
      (($# > 1)) || fail "$1 needs a value"
      case $1 in
        --hub) hub=$2 ;;
        --hub-resource-group) hub_group=$2 ;;
        --resource-group) group=$2 ;;
        --device-id-prefix) prefix=$2 ;;
      esac
      shift 2
      ;;
    --redeploy) redeploy=true && shift ;;
    --dry-run) dry_run=true && shift ;;
    -h | --help) usage && exit ;;
    *) usage >&2 && fail "what is $1?" ;;
  esac
done
if [[ -z $hub || -z $hub_group || -z $group ]]; then
  usage >&2
  fail "--hub, --hub-resource-group and --resource-group are needed"
fi
command -v az >/dev/null || fail "the Azure CLI (az) is not installed"

there() { printf 'there already: %s\n' "$*"; }

# Does it, or says that it would. Arguments: what, then the command.
change() {
  local what=$1
  shift
  if $dry_run; then
    printf 'would add:     %s\n' "$what"
  else
    "$@"
    printf 'added:         %s\n' "$what"
  fi
}

# A value of the hub, as lines of tab-separated fields; nothing where it is null.
hub_value() {
  az iot hub show --name "$hub" --resource-group "$hub_group" --query "$1" --output tsv
}

look_at_hub() {
  local size
  size=$(hub_value '[sku.name, sku.capacity]') || fail "can't read the IoT Hub $hub in the resource group $hub_group"
  { read -r IOTHUB_SKU && read -r IOTHUB_UNITS; } <<<"$size"
  case $IOTHUB_SKU in
    F1 | S1 | S2 | S3) ;;
    *) fail "the IoT Hub $hub is of the size $IOTHUB_SKU, which has no device twins; the bridge needs F1, S1, S2 or S3" ;;
  esac
  export IOTHUB_SKU IOTHUB_UNITS
}

ensure_policy() {
  local rights
  rights=$(az iot hub policy list --hub-name "$hub" --resource-group "$hub_group" \
    --query "[?keyName=='$policy'].[rights]" --output tsv)
  case $rights in
    DeviceConnect) there "shared access policy $policy with DeviceConnect" ;;
    '')
      change "shared access policy $policy with DeviceConnect" \
        az iot hub policy create --hub-name "$hub" --resource-group "$hub_group" --name "$policy" \
        --permissions DeviceConnect --output none
      ;;
    *) fail "the hub has a policy $policy with the rights $rights instead of DeviceConnect; remove it, then run this again" ;;
  esac
}

# Sets what the deployment gave out; nothing if the last one did not succeed.
look_at_deployment() {
  local all name='properties.outputs'
  all=$(az deployment group list --resource-group "$group" --output tsv \
    --query "[?name=='$deployment' && properties.provisioningState=='Succeeded'].[$name.hubIdentityId.value, $name.stackEventsEndpoint.value, $name.functionAppName.value, $name.nextStep.value]")
  IFS=$'\t' read -r identity uri app next_step <<<"$all"
}

# A setting of an app, which is no secret; nothing where it is not set. Arguments: app, setting.
setting_of() {
  az functionapp config appsettings list --resource-group "$group" --name "$1" \
    --query "[?name=='$2'].[value]" --output tsv || fail "can't read the settings of the Function app $1 in $group"
}

# Finds the bridge's app, also where its last deployment broke off and so gave nothing out. Nothing where there is none.
find_app() {
  local apps name host
  apps=$(az functionapp list --resource-group "$group" --query '[].[name]' --output tsv)
  if [[ -n $app ]]; then
    # It may have been deleted by hand.
    grep -qixF "$app" <<<"$apps" || app=''
    return
  fi
  for name in $apps; do
    host=$(setting_of "$name" IOTHUB_HOSTNAME)
    if [[ ${host,,} = "${hub,,}.azure-devices.net" ]]; then
      app=$name
    fi
  done
}

# The settings of the app are replaced as a whole: a prefix that was given once is kept, because without it the bridge
# would speak as any device of the hub, and with another one as other devices than before.
keep_prefix() {
  local present
  find_app
  [[ -n $app ]] || return 0
  present=$(setting_of "$app" DEVICE_ID_PREFIX)
  if [[ -z $prefix ]]; then
    prefix=$present
  elif [[ $prefix != "$present" ]]; then
    fail "the bridge has the device id prefix '$present', and '$prefix' is given. Another prefix means other devices in the hub: those that are there stay, and are not served any more. To change it nevertheless: az functionapp config appsettings set --resource-group $group --name $app --settings DEVICE_ID_PREFIX=$prefix, then run this again"
  fi
}

# Nobody can read a secret back: deployed without the webhook's, the app would no longer ask for it, without a word.
demand_webhook_secret() {
  local name
  [[ -n $app && -z ${WEBHOOK_SECRET:-} ]] || return 0
  name=$(az functionapp config appsettings list --resource-group "$group" --name "$app" \
    --query "[?name=='WEBHOOK_SECRET'].[name]" --output tsv) || fail "can't read the settings of the Function app $app in $group"
  [[ -z $name ]] || fail "the bridge checks a webhook secret, and WEBHOOK_SECRET is not set in the environment: deployed so, the check would be gone. Set it to the same or another secret. To do without it: az functionapp config appsettings delete --resource-group $group --name $app --setting-names WEBHOOK_SECRET, then run this again"
}

deploy() {
  az deployment group create --resource-group "$group" --name "$deployment" \
    --parameters "$here/main.bicepparam" --output none
}

ensure_deployment() {
  look_at_deployment
  if [[ $redeploy = false && -n $identity ]]; then
    there "the bridge in the resource group $group (--redeploy deploys it again)"
    if [[ -n $prefix ]]; then
      keep_prefix
    fi
    return
  fi
  local name
  for name in STACK_CLUSTER_ADDRESS STACK_APPLICATION_ID STACK_API_KEY; do
    [[ -n ${!name:-} ]] || fail "$name is not set in the environment"
  done
  export EXISTING_IOT_HUB_NAME=$hub EXISTING_IOT_HUB_RESOURCE_GROUP=$hub_group
  keep_prefix
  demand_webhook_secret
  export DEVICE_ID_PREFIX=$prefix
  if [[ -n $prefix ]]; then
    printf 'note: the device id prefix is %s\n' "$prefix"
  else
    printf 'note: without --device-id-prefix the bridge speaks as any device of the hub whose id is also one in The Things Stack.\n'
  fi
  # The released package that the template names, unless the caller has another wish.
  local released
  released=$(sed -n "s/^param packageUri string = '\(.*\)'$/\1/p" "$here/main.bicep")
  export PACKAGE_URI=${PACKAGE_URI-$released}
  change "the bridge in the resource group $group (takes some minutes)" deploy
  look_at_deployment
}

# Its role, Event Hubs Data Sender on stack-events, came with the deployment.
ensure_identity() {
  local present
  # shellcheck disable=SC2016 # the backticks are the query's
  present=$(hub_value 'keys(identity.userAssignedIdentities || `{}`)')
  if grep -qixF "$identity" <<<"$present"; then
    there "identity ${identity##*/} on the hub"
  else
    change "identity ${identity##*/} on the hub" \
      az iot hub identity assign --name "$hub" --resource-group "$hub_group" --user-assigned "$identity" --output none
  fi
}

ensure_endpoint() {
  local present wanted custom
  wanted=$uri$'\t'stack-events
  present=$(hub_value "properties.routing.endpoints.eventHubs[?name=='$endpoint'].[endpointUri, entityPath]")
  # Azure gives the address back with a slash or a port at its end.
  present=${present/:5671/}
  present=${present/\/$'\t'/$'\t'}
  case $present in
    "$wanted") there "endpoint $endpoint to $uri, event hub stack-events" ;;
    '')
      custom=$(hub_value 'properties.routing.endpoints.*[].[name]')
      if [[ $IOTHUB_SKU = F1 && -n $custom ]]; then
        fail "the hub is of the size F1, which allows one endpoint, and has ${custom//$'\n'/, }"
      fi
      change "endpoint $endpoint to $uri, event hub stack-events" \
        az iot hub message-endpoint create eventhub --hub-name "$hub" --resource-group "$hub_group" \
        --endpoint-name "$endpoint" --endpoint-uri "$uri" --entity-path stack-events --identity "$identity" \
        --endpoint-resource-group "$group" --endpoint-subscription-id "$subscription" --output none
      ;;
    *) fail "the hub has an endpoint $endpoint to another place ($present); remove it, then run this again" ;;
  esac
}

# Arguments: name, source, condition.
ensure_route() {
  local name=$1 source=$2 condition=$3 present
  present=$(hub_value "properties.routing.routes[?name=='$name'].[source, condition, endpointNames[0], isEnabled]")
  case ${present,,} in
    '')
      change "route $name" \
        az iot hub message-route create --hub-name "$hub" --resource-group "$hub_group" --route-name "$name" \
        --source-type "$source" --endpoint-name "$endpoint" --condition "$condition" --enabled true --output none
      ;;
    "${source,,}"$'\t'"${condition,,}"$'\t'"$endpoint"$'\t'true) there "route $name" ;;
    *) fail "the hub has a route $name that differs ($present); remove it, then run this again" ;;
  esac
}

look_at_hub
ensure_policy
ensure_deployment

if [[ -z $identity ]]; then
  $dry_run || fail "the deployment $deployment in $group has no outputs; look at it in the portal"
  printf 'would add:     identity, endpoint and two routes on the hub, once the bridge is deployed\n'
  exit
fi
subscription=${identity#/subscriptions/}
subscription=${subscription%%/*}

ensure_identity
ensure_endpoint
ensure_route tts-iot-hub-device-lifecycle DeviceLifecycleEvents true
# shellcheck disable=SC2016 # $body is the hub's
ensure_route tts-iot-hub-twin-changes TwinChangeEvents \
  'IS_OBJECT($body.properties.desired) OR IS_OBJECT($body.tags)'

if [[ $(hub_value properties.routing.fallbackRoute.isEnabled | tr '[:upper:]' '[:lower:]') != true ]]; then
  printf 'note: the fallback route of the hub is off. Telemetry that none of its routes takes is dropped; this is left as it is.\n'
fi
printf 'next: %s\n' "$next_step"
