// SPDX-License-Identifier: Apache-2.0
//! Which API a request is for, and who it comes from.

use axum::extract::Request;
use axum::http::{HeaderValue, header};
use axum::response::Response;

use crate::auth::{self, Access};
use crate::call::Call;
use crate::clock;
use crate::refusal::Refusal;
use crate::serve::Fake;
use crate::{json, signed, xml};

pub(crate) async fn dispatch(fake: &Fake, request: Request) -> Response {
    let mut call = Call::new(request);
    let is_json = ["/storage/v1/", "/upload/storage/v1/", "/download/storage/v1/"]
        .iter()
        .any(|root| call.path.starts_with(root));
    let mut response = if call.path == "/token" {
        auth::token(&fake.account, &mut call).await
    } else if is_json {
        json(fake, &mut call).await.unwrap_or_else(|refusal| refusal.json())
    } else {
        xml(fake, &mut call).await.unwrap_or_else(|refusal| refusal.xml())
    };
    call.drain().await;
    response.headers_mut().insert(header::SERVER, HeaderValue::from_static("UploadServer"));
    response
}

async fn json(fake: &Fake, call: &mut Call) -> Result<Response, Refusal> {
    let access = auth::bearer(&fake.account, call)?;
    json::answer(&fake.store, call, access).await
}

async fn xml(fake: &Fake, call: &mut Call) -> Result<Response, Refusal> {
    let access = if signed::is_signed(call) {
        signed::verify(&fake.account, call, clock::now() / 1_000_000)?;
        Access::Full
    } else {
        auth::bearer(&fake.account, call)?
    };
    access.need(if call.method.is_safe() { Access::Read } else { Access::Write })?;
    xml::answer(&fake.store, call).await
}
