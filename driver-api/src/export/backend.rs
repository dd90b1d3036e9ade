// SPDX-License-Identifier: Apache-2.0
//! The exported backend: refuses what no backend may be asked, then asks the author's code.

use std::sync::Arc;

use abi_stable::{
    sabi_trait::TD_Opaque,
    std_types::{RArc, ROption, RResult, RStr, RString, RVec},
};

use super::{
    Contained, ask, cluster::export_cluster, objects::export_objects, start,
    volume::export_attached,
};
use crate::{
    Attach, AttachMode, Backend, BackendHandle, Capabilities, ClonesHandle, ClusterHandle,
    CommandsHandle, Error, ErrorKind, Health, Host, ObjectsHandle, Op, OpContext, Result, Stats,
    Usage, VolumeHandle, VolumeInfo, VolumeSpec,
    abi::{RawBackend, RawBackend_TO, RawClones, RawClones_TO, RawCommands, RawCommands_TO},
    ext,
};

/// A backend as the other side holds it.
pub fn export_backend<B: Backend>(backend: B, host: Host) -> BackendHandle {
    export_checked(backend, host, None)
}

pub(super) fn export_checked<B: Backend>(
    backend: B,
    host: Host,
    options: Option<Vec<RString>>,
) -> BackendHandle {
    let glue = BackendGlue { backend: Contained::new(backend, host), options };
    BackendHandle { raw: RawBackend_TO::from_ptr(RArc::new(glue), TD_Opaque) }
}

struct BackendGlue<B> {
    backend: Contained<B>,
    /// The names of the volume options that the driver declares; `None`: nobody asked it.
    options: Option<Vec<RString>>,
}

impl<B: Backend> BackendGlue<B> {
    /// Refuses what no volume of this backend can be.
    fn check(&self, spec: &VolumeSpec, smallest: u64) -> Result<()> {
        let largest = self.backend.capabilities().max_volume_size;
        if !(smallest..=largest).contains(&spec.size) {
            let why = format!("a volume of this backend has {smallest} to {largest} bytes");
            return Err(Error::new(ErrorKind::INVALID_ARGUMENT, why).with("size", spec.size));
        }
        let Some(known) = &self.options else { return Ok(()) };
        match spec.options.iter().find(|option| !known.contains(&option.0)) {
            None => Ok(()),
            Some(unknown) => {
                let why = format!("the driver has no volume option `{}`", unknown.0);
                let error = Error::new(ErrorKind::INVALID_ARGUMENT, why);
                Err(error.with("options", known.join(", ")))
            }
        }
    }
}

impl<B: Backend> RawBackend for BackendGlue<B> {
    fn capabilities(&self) -> RResult<Capabilities, Error> {
        ask(|| self.backend.capabilities())
    }

    fn create(&self, cx: &OpContext, spec: VolumeSpec) -> Op<VolumeInfo> {
        start(|| match self.check(&spec, 1) {
            Ok(()) => self.backend.create(cx, spec),
            Err(refusal) => Op::err(refusal.during("create volume").with("volume", &spec.name)),
        })
    }

    fn delete(&self, cx: &OpContext, name: RStr<'_>) -> Op<()> {
        start(|| self.backend.delete(cx, name.as_str()))
    }

    fn list(&self, cx: &OpContext) -> Op<RVec<VolumeInfo>> {
        start(|| self.backend.list(cx))
    }

    fn show(&self, cx: &OpContext, name: RStr<'_>) -> Op<VolumeInfo> {
        start(|| self.backend.show(cx, name.as_str()))
    }

    fn attach(&self, cx: &OpContext, name: RStr<'_>, attach: Attach) -> Op<VolumeHandle> {
        let host = self.backend.host.clone();
        let writable = attach.mode == AttachMode::EXCLUSIVE;
        start(|| {
            let attaching = self.backend.attach(cx, name.as_str(), attach);
            attaching.map(move |volume| Ok(export_attached(volume?, host, writable)))
        })
    }

    fn usage(&self, cx: &OpContext) -> Op<Usage> {
        start(|| self.backend.usage(cx))
    }

    fn health(&self, cx: &OpContext) -> Op<Health> {
        start(|| self.backend.health(cx))
    }

    fn stats(&self) -> RResult<Stats, Error> {
        ask(|| self.backend.stats())
    }

    fn close(&self, cx: &OpContext) -> Op<()> {
        start(|| self.backend.close(cx))
    }

    fn clones(&self) -> RResult<ROption<ClonesHandle>, Error> {
        let host = &self.backend.host;
        ask(|| {
            let clones = self.backend.clones()?;
            let glue = ClonesGlue(Contained::new(clones, host.clone()));
            Some(ClonesHandle { raw: RawClones_TO::from_ptr(RArc::new(glue), TD_Opaque) })
        })
        .map(Into::into)
    }

    fn commands(&self) -> RResult<ROption<CommandsHandle>, Error> {
        let host = &self.backend.host;
        ask(|| {
            let commands = self.backend.commands()?;
            let glue = CommandsGlue(Contained::new(commands, host.clone()));
            Some(CommandsHandle { raw: RawCommands_TO::from_ptr(RArc::new(glue), TD_Opaque) })
        })
        .map(Into::into)
    }

    fn cluster(&self) -> RResult<ROption<ClusterHandle>, Error> {
        let host = &self.backend.host;
        ask(|| {
            let max_io = self.backend.capabilities().max_io;
            Some(export_cluster(self.backend.cluster()?, host.clone(), max_io))
        })
        .map(Into::into)
    }

    fn rename(&self, cx: &OpContext, name: RStr<'_>, to: RStr<'_>) -> Op<VolumeInfo> {
        start(|| self.backend.rename(cx, name.as_str(), to.as_str()))
    }

    fn objects(&self) -> RResult<ROption<ObjectsHandle>, Error> {
        let host = &self.backend.host;
        ask(|| Some(export_objects(self.backend.objects()?, host.clone()))).map(Into::into)
    }
}

struct ClonesGlue(Contained<Arc<dyn ext::Clones>>);

impl RawClones for ClonesGlue {
    fn clone_volume(
        &self,
        cx: &OpContext,
        source: RStr<'_>,
        snapshot: RStr<'_>,
        target: VolumeSpec,
    ) -> Op<VolumeInfo> {
        start(|| self.0.clone_volume(cx, source.as_str(), snapshot.as_str(), target))
    }

    fn flatten(&self, cx: &OpContext, volume: RStr<'_>, on: bool) -> Op<()> {
        start(|| self.0.flatten(cx, volume.as_str(), on))
    }

    fn flattening(&self, cx: &OpContext, volume: RStr<'_>) -> Op<ext::Flattening> {
        start(|| self.0.flattening(cx, volume.as_str()))
    }
}

struct CommandsGlue(Contained<Arc<dyn ext::Commands>>);

impl RawCommands for CommandsGlue {
    fn list(&self) -> RResult<RVec<ext::CommandSpec>, Error> {
        ask(|| self.0.list())
    }

    fn run(&self, cx: &OpContext, command: RStr<'_>, arguments: RStr<'_>) -> Op<RString> {
        start(|| self.0.run(cx, command.as_str(), arguments.as_str()))
    }
}
