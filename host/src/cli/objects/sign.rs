// SPDX-License-Identifier: Apache-2.0
//! `novastor object sign`.

use driver_api::Result;

use super::{names::Query, show::moment};
use crate::{
    api::objects::types::{SignObject, SignedView},
    cli::{
        Output, Session,
        args::objects::{Method, Sign},
        show,
    },
};

impl Session {
    pub(super) async fn sign(&self, sign: Sign) -> Result<()> {
        let path = format!("{}/sign", self.store(sign.store).await?.paths.object(&sign.object));
        let path = Query::new(path).maybe("version", sign.version.as_deref()).text();
        let method = match sign.method {
            Method::Get => "GET",
            Method::Put => "PUT",
            Method::Head => "HEAD",
            Method::Delete => "DELETE",
            Method::PutPart => "PUT-PART",
        };
        let body = SignObject {
            method: method.to_owned(),
            expire_secs: sign.expires.as_secs(),
            upload: sign.upload,
            part: sign.part,
        };
        // Asked anew each time: a URL that was signed before has expired sooner.
        let signed: SignedView = self.client.asking().post(&path, &body).await?;
        if self.output == Output::Json {
            return show::json(&signed);
        }
        eprintln!("{} until {} UTC", signed.method, moment(signed.expires.saturating_mul(1000)));
        for (name, value) in &signed.headers {
            eprintln!("to be sent with it: {name}: {value}");
        }
        show::print(&format!("{}\n", signed.url))
    }
}
