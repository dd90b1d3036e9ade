// SPDX-License-Identifier: Apache-2.0
//! Commands of the driver's own: the state of the mounts, and what servers export.

use std::{sync::Arc, time::Instant};

use driver_api::{
    Error, ErrorKind, Op, OpContext, RString, RVec, Result,
    ext::{CommandSpec, Commands},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use crate::{
    config::NamedShare,
    ending::to_the_end,
    error::{internal, invalid},
    store::Store,
};

/// The commands of a backend.
pub(crate) struct NetfsCommands(pub Arc<Store>);

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct Arguments {
    share: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Named {
    share: String,
}

impl Commands for NetfsCommands {
    fn list(&self) -> RVec<CommandSpec> {
        let command = |name: &str, help: &str, example: Value| CommandSpec {
            name: name.into(),
            help: help.into(),
            example: example.to_string().into(),
            mutates: ["add-share", "remove-share"].contains(&name),
        };
        RVec::from(vec![
            command("mounts", "Each mount: its state, and why.", json!({})),
            command(
                "exports",
                "What a share's server exports, and to whom.",
                json!({ "share": "share" }),
            ),
            command(
                "add-share",
                "Adds a share until the backend is closed; it must be mountable now.",
                json!({ "name": "large", "share": "/srv/hdd", "path": "novastor" }),
            ),
            command(
                "remove-share",
                "Takes a share away on which no volume is attached; what lies on it stays.",
                json!({ "share": "large" }),
            ),
        ])
    }

    fn run(&self, cx: &OpContext, command: &str, arguments: &str) -> Op<RString> {
        let (store, until) = (Arc::clone(&self.0), self.0.until(cx));
        match command {
            "mounts" => Op::ready(parse::<Arguments>(arguments).and_then(|_| mounts(&store))),
            "add-share" => match parse::<NamedShare>(arguments) {
                Ok(share) => {
                    to_the_end(async move { shown(&store.add_share(&share, until).await?) })
                }
                Err(error) => Op::err(error),
            },
            "remove-share" => match parse::<Named>(arguments) {
                Ok(named) => to_the_end(async move {
                    store.remove_share(&named.share, until).await?;
                    mounts(&store)
                }),
                Err(error) => Op::err(error),
            },
            "exports" => match parse::<Arguments>(arguments) {
                Ok(arguments) => Op::run(exports(store, arguments, until)),
                Err(error) => Op::err(error),
            },
            _ => Op::err(
                Error::new(ErrorKind::UNSUPPORTED, format!("there is no command `{command}`"))
                    .remedy("use one of: mounts, exports, add-share, remove-share"),
            ),
        }
    }
}

async fn exports(store: Arc<Store>, arguments: Arguments, until: Instant) -> Result<RString> {
    let mount = match &arguments.share {
        Some(name) => store.mount(name)?,
        None => store.mounts().into_iter().next().ok_or_else(|| invalid("there is no share"))?,
    };
    let listed = mount.exports(until).await.map_err(|fault| {
        let told = fault.told("the server cannot be asked for its exports");
        told.with("share", &mount.place.name)
    })?;
    shown(&listed)
}

fn parse<T: DeserializeOwned>(arguments: &str) -> Result<T> {
    let arguments = if arguments.trim().is_empty() { "{}" } else { arguments };
    serde_json::from_str(arguments)
        .map_err(|error| invalid(format!("the arguments do not fit: {error}")))
}

fn shown(value: &impl Serialize) -> Result<RString> {
    let text = serde_json::to_string(value)
        .map_err(|error| internal(format!("the answer cannot be shown: {error}")))?;
    Ok(text.into())
}

fn mounts(store: &Store) -> Result<RString> {
    let all: Vec<_> = store.mounts().iter().map(|mount| mount.shown()).collect();
    shown(&all)
}
