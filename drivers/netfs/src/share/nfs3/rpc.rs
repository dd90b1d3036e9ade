// SPDX-License-Identifier: Apache-2.0
//! Calls through `nfs3_client`, and the two that carry data without it.
//!
//! The crate sends a call as one record and waits for the answer to the same transaction id. [`Wire`] is its connection:
//! it takes the record, sends it over the shared [`Mux`] under an id of its own, and gives the answer back under the
//! crate's. What carries data (READ, WRITE) is encoded here with the crate's types, so that the payload is neither packed into a vector
//! nor copied out of one.

use std::{io, time::Instant};

use bytes::{Buf, Bytes};
use driver_api::{Error, ErrorKind};
use nfs3_client::{
    RpcError,
    io::{AsyncRead, AsyncWrite},
};
use nfs3_types::{
    nfs3::{PROGRAM, VERSION},
    rpc::{
        RPC_VERSION_2, accept_stat_data, auth_stat, call_body, msg_body, opaque_auth, reply_body,
        rpc_msg,
    },
    xdr_codec::{Pack, Unpack},
};

use super::mux::{Mux, Record};
use crate::error::{Fault, broken_server, internal};

/// `nfs3_client`'s connection: one call long.
pub(crate) struct Wire<'a> {
    mux: &'a Mux,
    until: Instant,
    answer: Bytes,
}

impl<'a> Wire<'a> {
    /// A connection for a call that ends by `until`.
    pub fn new(mux: &'a Mux, until: Instant) -> Self {
        Self { mux, until, answer: Bytes::new() }
    }
}

impl AsyncWrite for Wire<'_> {
    async fn async_write(&mut self, record: &[u8]) -> io::Result<usize> {
        let Some(xid) = record.get(4..8) else {
            return Err(io::Error::other("a call without a transaction id"));
        };
        let sending = Record { head: record.to_vec(), payload: Bytes::new() };
        let answer = self.mux.call(sending, self.until).await.map_err(io::Error::other)?;
        let mark = 0x8000_0000 | u32::try_from(answer.len()).map_err(io::Error::other)?;
        let mut joined = Vec::with_capacity(answer.len() + 4);
        joined.extend_from_slice(&mark.to_be_bytes());
        joined.extend_from_slice(xid);
        joined.extend_from_slice(&answer[4..]);
        self.answer = joined.into();
        Ok(record.len())
    }
}

impl AsyncRead for Wire<'_> {
    async fn async_read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = buffer.len().min(self.answer.len());
        if count == 0 && !buffer.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.answer.copy_to_slice(&mut buffer[..count]);
        Ok(count)
    }
}

/// What `nfs3_client` makes of a failure, told apart again.
pub(crate) fn fault_of(error: RpcError) -> Fault {
    match error {
        RpcError::Io(error) => match error.downcast::<Fault>() {
            Ok(fault) => fault,
            Err(error) => {
                Fault::Refused(broken_server(format!("the answer ends too early: {error}")))
            }
        },
        RpcError::Auth(stat) => refused_identity(stat),
        RpcError::ProgUnavail | RpcError::ProgMismatch { .. } => {
            Fault::Refused(no_such_service(&error.to_string()))
        }
        RpcError::SystemErr => Fault::Later,
        other => Fault::Refused(broken_server(format!(
            "the server's answer was not understood: {other}"
        ))),
    }
}

fn no_such_service(why: &str) -> Error {
    Error::new(
        ErrorKind::UNSUPPORTED,
        format!("the server does not offer this version of NFS: {why}"),
    )
    .remedy("allow it on the server, or name another one in `versions`; check `port`")
}

fn refused_identity(stat: auth_stat) -> Fault {
    let remedy = match stat {
        auth_stat::AUTH_TOOWEAK => {
            "the export needs `insecure` (ganesha: PrivilegedPort = false), or set `reserved_port = true`"
        }
        _ => "the export must allow sec=sys for this host; check `uid` and `gid`",
    };
    Fault::Refused(
        Error::new(ErrorKind::UNAUTHENTICATED, format!("the server refused this client: {stat}"))
            .remedy(remedy),
    )
}

/// The head of a call of NFS procedure `procedure`, with room for the record mark and the transaction id.
pub(crate) fn head(
    credential: &opaque_auth<'static>,
    procedure: u32,
    arguments: &impl Pack,
) -> Result<Vec<u8>, Fault> {
    let mut head = call_head(credential, VERSION, procedure)?;
    head.reserve(arguments.packed_size() + 24);
    packed(arguments, &mut head)?;
    Ok(head)
}

/// What stands before the arguments of a call of this version of NFS.
pub(crate) fn call_head(
    credential: &opaque_auth<'static>,
    version: u32,
    procedure: u32,
) -> Result<Vec<u8>, Fault> {
    let call = call_body {
        rpcvers: RPC_VERSION_2,
        prog: PROGRAM,
        vers: version,
        proc: procedure,
        cred: credential.borrow(),
        verf: opaque_auth::default(),
    };
    let message = rpc_msg { xid: 0, body: msg_body::CALL(call) };
    let mut head = Vec::with_capacity(256);
    head.extend_from_slice(&[0; 4]);
    packed(&message, &mut head)?;
    Ok(head)
}

/// Encodes a value.
pub(crate) fn packed(value: &impl Pack, out: &mut Vec<u8>) -> Result<(), Fault> {
    let packed = value.pack(out);
    packed.map(drop).map_err(|error| internal(format!("a call cannot be encoded: {error}")).into())
}

/// Decodes a value off the front of an answer.
pub(crate) fn unpacked<T: Unpack>(answer: &mut &[u8]) -> Result<T, Fault> {
    match T::unpack(answer) {
        Ok((value, _)) => Ok(value),
        Err(error) => {
            Err(broken_server(format!("the server's answer was not understood: {error}")).into())
        }
    }
}

/// Takes the head off an answer; an error if the call was not accepted.
pub(crate) fn accepted(answer: &mut &[u8]) -> Result<(), Fault> {
    let message: rpc_msg<'_, '_> = unpacked(answer)?;
    let error = match message.body {
        msg_body::REPLY(reply_body::MSG_ACCEPTED(reply)) => match reply.reply_data {
            accept_stat_data::SUCCESS => return Ok(()),
            other => RpcError::try_from(other).unwrap_or(RpcError::SystemErr),
        },
        msg_body::REPLY(reply_body::MSG_DENIED(denied)) => RpcError::from(denied),
        msg_body::CALL(_) => RpcError::UnexpectedCall,
    };
    Err(fault_of(error))
}
