// SPDX-License-Identifier: Apache-2.0
//! Commands of the driver's own: the state of the mounts, and what servers export.

use std::sync::Arc;

use driver_api::{
    Error, ErrorKind, Op, OpContext, RString, RVec, Result,
    ext::{CommandSpec, Commands},
};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    config::Protocol,
    error::{internal, invalid},
    share::nfs3,
    store::Store,
};

/// The commands of a backend.
pub(crate) struct NetfsCommands(pub Arc<Store>);

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct Arguments {
    share: Option<String>,
}

impl Commands for NetfsCommands {
    fn list(&self) -> RVec<CommandSpec> {
        let command = |name: &str, help: &str, example: Value| CommandSpec {
            name: name.into(),
            help: help.into(),
            example: example.to_string().into(),
            mutates: false,
        };
        RVec::from(vec![
            command("mounts", "Each mount: its state, and why.", json!({})),
            command(
                "exports",
                "What a share's server exports, and to whom.",
                json!({ "share": "share" }),
            ),
        ])
    }

    fn run(&self, cx: &OpContext, command: &str, arguments: &str) -> Op<RString> {
        let arguments = match parse(arguments) {
            Ok(arguments) => arguments,
            Err(error) => return Op::err(error),
        };
        let (store, until) = (Arc::clone(&self.0), self.0.until(cx));
        match command {
            "mounts" => Op::ready(mounts(&store)),
            "exports" => Op::run(async move {
                let mount = match &arguments.share {
                    Some(name) => store.mount(name)?,
                    None => store
                        .mounts()
                        .into_iter()
                        .next()
                        .ok_or_else(|| invalid("there is no share"))?,
                };
                if mount.place.protocol != Protocol::Nfs {
                    return Err(Error::new(
                        ErrorKind::UNSUPPORTED,
                        "only NFS servers tell what they export",
                    )
                    .with("share", &mount.place.name));
                }
                let listed = nfs3::exports(&mount.place, &mount.figures, until).await;
                let listed = listed
                    .map_err(|fault| fault.told("the server cannot be asked for its exports"))?;
                let shown: Vec<Value> = listed
                    .into_iter()
                    .map(|(export, clients)| json!({ "export": export, "clients": clients }))
                    .collect();
                Ok(Value::from(shown).to_string().into())
            }),
            _ => Op::err(
                Error::new(ErrorKind::UNSUPPORTED, format!("there is no command `{command}`"))
                    .remedy("use one of: mounts, exports"),
            ),
        }
    }
}

fn parse(arguments: &str) -> Result<Arguments> {
    if arguments.trim().is_empty() {
        return Ok(Arguments::default());
    }
    serde_json::from_str(arguments)
        .map_err(|error| invalid(format!("the arguments do not fit: {error}")))
}

fn mounts(store: &Store) -> Result<RString> {
    let shown: Vec<_> = store.mounts().iter().map(|mount| mount.shown()).collect();
    let text = serde_json::to_string(&shown)
        .map_err(|error| internal(format!("the mounts cannot be shown: {error}")))?;
    Ok(text.into())
}
