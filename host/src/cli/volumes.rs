// SPDX-License-Identifier: Apache-2.0
//! `novastor volume`.

use std::{
    io::Read,
    path::{Path, PathBuf},
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use driver_api::{Error, ErrorKind, Result};
use http_body_util::BodyExt;
use hyper::body::{Body, Frame};

use super::{
    Session,
    args::{Output, Placement, VolumeCommand},
    client::{part, token_in},
    show,
};
use crate::api::changes::RenameVolume;
use crate::api::types::{
    AdoptVolume, AttachVolume, CloneVolume, CreateVolume, ExportVolume, ImportVolume, JobView,
    RepairVolume, ResizeVolume, VolumeView,
};

const PIECE: usize = 1 << 20;

pub(super) fn of(name: &str) -> String {
    format!("/v1/volumes/{}", part(name))
}

fn absolute(file: &Path) -> Result<String> {
    let path = std::path::absolute(file)
        .map_err(|error| Error::from_io("the working directory is unknown", &error))?;
    path.into_os_string().into_string().map_err(|path| {
        Error::new(ErrorKind::INVALID_ARGUMENT, "the path is not UTF-8")
            .with("file", PathBuf::from(path).display())
    })
}

impl Session {
    pub(super) async fn volume(&self, command: VolumeCommand) -> Result<()> {
        let client = &self.client;
        match command {
            VolumeCommand::Create { name, size, labels, placement } => {
                let Placement { backend, options } = placement;
                let (options, labels) =
                    (options.into_iter().collect(), labels.into_iter().collect());
                let body = CreateVolume { name, size, backend, options, labels };
                self.one(&client.post::<VolumeView>("/v1/volumes", &body).await?)
            }
            VolumeCommand::Delete { name, snapshots } => {
                client.delete(&format!("{}?snapshots={snapshots}", of(&name))).await?;
                self.done(&format!("volume {name} is deleted"))
            }
            VolumeCommand::List { unmanaged, watched } => {
                self.list::<VolumeView>(&format!("/v1/volumes?unmanaged={unmanaged}"), watched)
                    .await
            }
            VolumeCommand::Show { name } => self.one(&client.get::<VolumeView>(&of(&name)).await?),
            VolumeCommand::Resize { name, size, shrink } => {
                let path = format!("{}/resize", of(&name));
                self.one(&client.post::<VolumeView>(&path, &ResizeVolume { size, shrink }).await?)
            }
            VolumeCommand::Clone { source, name, snapshot, size, placement, waiting } => {
                let Placement { backend, options } = placement;
                let options = options.into_iter().collect();
                let body = CloneVolume { name, snapshot, backend, size, options };
                let path = format!("{}/clone", of(&source));
                self.follow(client.post::<JobView>(&path, &body).await?, waiting).await
            }
            VolumeCommand::Flatten { name, waiting } => {
                let path = format!("{}/flatten", of(&name));
                let job = client.post::<JobView>(&path, &serde_json::json!({})).await?;
                self.follow(job, waiting).await
            }
            VolumeCommand::Rename { name, to } => {
                let path = format!("{}/rename", of(&name));
                self.one(&client.post::<VolumeView>(&path, &RenameVolume { to }).await?)
            }
            VolumeCommand::Changes(of) => self.changes(&of).await,
            VolumeCommand::Attach { name, read_only, take_over } => {
                let path = format!("{}/attach", of(&name));
                let body = AttachVolume { read_only, take_over };
                self.one(&client.post::<VolumeView>(&path, &body).await?)
            }
            VolumeCommand::Detach { name } => {
                let path = format!("{}/detach", of(&name));
                self.one(&client.post::<VolumeView>(&path, &serde_json::json!({})).await?)
            }
            VolumeCommand::Import { file, name, format, placement, waiting } => {
                let Placement { backend, options } = placement;
                let body = ImportVolume {
                    file: absolute(&file)?,
                    format: format.into(),
                    backend,
                    options: options.into_iter().collect(),
                };
                let path = format!("{}/import", of(&name));
                self.follow(client.post::<JobView>(&path, &body).await?, waiting).await
            }
            VolumeCommand::Export { name, file, format, force, waiting } => {
                let body = ExportVolume { file: absolute(&file)?, format: format.into(), force };
                let path = format!("{}/export", of(&name));
                self.follow(client.post::<JobView>(&path, &body).await?, waiting).await
            }
            VolumeCommand::Adopt { name, backend, inner_name } => {
                let path = format!("{}/adopt", of(&name));
                let body = AdoptVolume { backend, inner_name };
                self.one(&client.post::<VolumeView>(&path, &body).await?)
            }
            VolumeCommand::Replicas { name } => self.replicas(&name).await,
            VolumeCommand::Shards { name, first, limit } => self.shards(&name, first, limit).await,
            VolumeCommand::Verify { name, waiting } => {
                let path = format!("{}/verify", of(&name));
                let job = client.post::<JobView>(&path, &serde_json::json!({})).await?;
                self.follow(job, waiting).await
            }
            VolumeCommand::Repair { name, source, waiting } => {
                let path = format!("{}/repair", of(&name));
                let job = client.post::<JobView>(&path, &RepairVolume { source }).await?;
                self.follow(job, waiting).await
            }
            VolumeCommand::Rebalance { name, status, waiting } => {
                self.rebalance(&name, status, waiting).await
            }
            VolumeCommand::Scrub { name, repair, status, waiting } => {
                self.scrub(&name, repair, status, waiting).await
            }
            VolumeCommand::Set { name, options, plan: true, .. } => {
                self.plan_options(&name, options.into_iter().collect()).await
            }
            VolumeCommand::Set { name, options, rebalance, waiting, .. } => {
                let at_once = rebalance.then_some(waiting);
                self.set_options(&name, options.into_iter().collect(), at_once).await
            }
            VolumeCommand::Read { name, offset, length, token } => {
                self.read(&of(&name), offset, length, token).await
            }
            VolumeCommand::Write { name, offset, token } => {
                self.write(&of(&name), offset, token).await
            }
            VolumeCommand::Promote { name, flags } => self.promote(&name, &flags).await,
        }
    }

    /// Writes bytes of a volume or shard, a resource, to standard output.
    pub(super) async fn read(
        &self,
        resource: &str,
        offset: u64,
        length: Option<u64>,
        token: Option<String>,
    ) -> Result<()> {
        let mut path = format!("{resource}/data?offset={offset}");
        if let Some(length) = length {
            path.push_str(&format!("&length={length}"));
        }
        let in_session = token.is_some();
        let response = self.client.in_session(token).stream(&path).await?;
        let mut token = token_in(response.headers());
        let mut body = response.into_body();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| {
                Error::new(ErrorKind::UNAVAILABLE, "the data broke off")
                    .caused_by(&error)
                    .remedy("see the host's log")
            })?;
            match frame.into_data() {
                Ok(data) => show::raw(&data)?,
                Err(frame) => token = frame.trailers_ref().and_then(token_in).or(token),
            }
        }
        tell_token(in_session, token);
        Ok(())
    }

    /// Writes standard input to a volume or shard, a resource.
    pub(super) async fn write(
        &self,
        resource: &str,
        offset: u64,
        token: Option<String>,
    ) -> Result<()> {
        let (sender, receiver) = tokio::sync::mpsc::channel(4);
        // A thread of its own: a read of a terminal must not keep the process at its end.
        std::thread::spawn(move || {
            loop {
                let mut buffer = vec![0; PIECE];
                let piece = match std::io::stdin().read(&mut buffer) {
                    Ok(0) => return,
                    Ok(len) => {
                        buffer.truncate(len);
                        Ok(Bytes::from(buffer))
                    }
                    Err(error) => Err(error),
                };
                let failed = piece.is_err();
                if sender.blocking_send(piece).is_err() || failed {
                    return;
                }
            }
        });
        let path = format!("{resource}/data?offset={offset}");
        let in_session = token.is_some();
        let client = self.client.in_session(token);
        let (written, token): (u64, _) = client.put(&path, Input(receiver).boxed()).await?;
        tell_token(in_session, token);
        match self.output {
            Output::Table => self.done(&format!("{written} bytes are written, durably")),
            Output::Json => show::json(&serde_json::json!({ "written": written })),
        }
    }
}

/// Tells where a session is, beside the data: what goes to standard output is the volume's.
fn tell_token(in_session: bool, token: Option<String>) {
    match token {
        Some(token) if in_session => eprintln!("token: {token}"),
        None if in_session => eprintln!("the driver has no sessions: every read sees every write"),
        _ => {}
    }
}

/// Standard input as a body.
struct Input(tokio::sync::mpsc::Receiver<std::io::Result<Bytes>>);

impl Body for Input {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<std::io::Result<Frame<Bytes>>>> {
        self.0.poll_recv(cx).map(|piece| piece.map(|piece| piece.map(Frame::data)))
    }
}
