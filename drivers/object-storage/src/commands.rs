// SPDX-License-Identifier: Apache-2.0
//! Commands of the driver's own.

use std::sync::Arc;

use driver_api::{
    Error, ErrorKind, Op, OpContext, RString, RVec,
    ext::{CommandSpec, Commands},
};
use serde_json::json;

use crate::{
    account::Account,
    config::Kind,
    control::swift::expire::{Wish, expire},
    error::{invalid, unsupported},
};

const EXPIRE: &str = "expire-prefix";

/// The commands of a backend.
pub(crate) struct CommandsOf(pub Arc<Account>);

impl Commands for CommandsOf {
    fn list(&self) -> RVec<CommandSpec> {
        if self.0.kind != Kind::Swift {
            return RVec::new();
        }
        RVec::from(vec![CommandSpec {
            name: EXPIRE.into(),
            help: "Has the objects below a prefix go so many days after they were written; run it as often as new ones are to \
                   be seen. If the answer's `after` is not empty, run it again with that."
                .into(),
            example: json!({"bucket": "logs", "prefix": "2026/", "days": 30, "after": ""}).to_string().into(),
            mutates: true,
        }])
    }

    fn run(&self, cx: &OpContext, command: &str, arguments: &str) -> Op<RString> {
        if command != EXPIRE {
            return Op::err(
                unsupported(format!("there is no command {command:?}")).remedy("list the commands"),
            );
        }
        let wish: Wish = match serde_json::from_str(arguments) {
            Ok(wish) => wish,
            Err(error) => {
                return Op::err(
                    invalid(format!("the arguments are not what {EXPIRE} takes: {error}"))
                        .during(EXPIRE),
                );
            }
        };
        let (account, until) = (Arc::clone(&self.0), self.0.until(cx));
        Op::run(async move {
            let done = expire(&account, until, &wish).await.map_err(|error| {
                account.traffic.failed(&error);
                error.during(EXPIRE)
            })?;
            let text = serde_json::to_string(&done);
            text.map(RString::from)
                .map_err(|error| Error::new(ErrorKind::INTERNAL, error.to_string()))
        })
    }
}
