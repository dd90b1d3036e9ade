// SPDX-License-Identifier: Apache-2.0
//! A small NFSv3 server that does what real ones do rarely: it forgets what was not committed, changes its verifier,
//! cuts answers off, is full at a commit, asks for patience.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU16, Ordering},
    },
};

use nfs3_types::{
    mount::{MOUNT_PROGRAM, dirpath, export_node, exports, fhandle3, mountres3, mountres3_ok},
    nfs3::*,
    rpc::{
        accept_stat_data, accepted_reply, call_body, msg_body, opaque_auth, reply_body, rpc_msg,
    },
    xdr_codec::{List, Opaque, Pack, Unpack, Void},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// A file: what is on the disk, and what a crash would lose, oldest first.
pub struct File {
    pub fileid: u64,
    pub kind: ftype3,
    pub links: u32,
    pub disk: Vec<u8>,
    pub dirty: Vec<(u64, Vec<u8>)>,
    token: [u8; 8],
}

impl File {
    /// What a read sees.
    pub fn content(&self) -> Vec<u8> {
        let mut content = self.disk.clone();
        for (offset, data) in &self.dirty {
            put(&mut content, *offset, data);
        }
        content
    }
}

fn put(content: &mut Vec<u8>, offset: u64, data: &[u8]) {
    let end = offset as usize + data.len();
    if content.len() < end {
        content.resize(end, 0);
    }
    content[offset as usize..end].copy_from_slice(data);
}

/// What the server does wrong.
#[derive(Default)]
pub struct Faults {
    /// It crashes and is back at once after this many writes, again and again.
    pub crash_every: u64,
    /// Commits find the disk full, and throw away what they should have kept.
    pub full_at_commit: bool,
    /// Writes find the disk full.
    pub full: bool,
    /// So many calls are answered with "later".
    pub later: u32,
    /// The connection is cut after the n-th call of this procedure was done, before its answer.
    pub cut_after: Option<(u32, u32)>,
    /// The connection is cut inside the answer of the n-th call of this procedure.
    pub cut_inside: Option<(u32, u32)>,
    /// Calls of this procedure are never answered.
    pub mute: Option<u32>,
    /// No more than this is taken or given by one call.
    pub at_most: Option<u32>,
    /// After so many calls of this procedure nobody is heard any more.
    pub dies_after: Option<(u32, u32)>,
    /// After so many calls, of whatever kind, nobody is heard any more.
    pub dies_after_calls: Option<u32>,
    /// Nobody is heard any more.
    pub dead: bool,
    /// Answers to reads have more bytes than were asked for.
    pub too_much: bool,
}

impl Faults {
    fn count(&mut self, procedure: u32) {
        if let Some((at, left)) = &mut self.dies_after
            && *at == procedure
        {
            *left -= 1;
            self.dead = *left == 0;
        }
        if let Some(left) = &mut self.dies_after_calls {
            *left = left.saturating_sub(1);
            self.dead |= *left == 0;
        }
        self.dies_after = self.dies_after.filter(|_| !self.dead);
        self.dies_after_calls = self.dies_after_calls.filter(|_| !self.dead);
    }
}

#[derive(Default)]
pub struct World {
    pub files: BTreeMap<String, File>,
    /// Files without a name, which their handles still lead to.
    pub nameless: Vec<File>,
    pub faults: Faults,
    pub verifier: u64,
    pub writes: u64,
    pub crashes: u64,
    /// Durable writes that came while something older of their file could still be lost.
    pub hasty: u64,
    pub connections: u64,
    /// Names that were asked for.
    pub asked: Vec<String>,
    next: u64,
}

/// The server; it ends with the runtime.
pub struct Fake {
    world: Arc<Mutex<World>>,
    port: Arc<AtomicU16>,
}

impl Fake {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let world = Arc::new(Mutex::new(World { verifier: 1, next: 100, ..World::default() }));
        let fake = Self { world: Arc::clone(&world), port: Arc::new(AtomicU16::new(port)) };
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.expect("accepted");
                world.lock().expect("world").connections += 1;
                tokio::spawn(serve(Arc::clone(&world), stream));
            }
        });
        fake
    }

    pub fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().expect("world")
    }

    /// The options of a backend on this server.
    pub fn options(&self) -> Value {
        let port = self.port.load(Ordering::Relaxed);
        json!({ "server": "127.0.0.1", "share": "/fake", "port": port, "mount_port": port })
    }
}

impl Fake {
    /// The same of a backend that waits as long as a busy machine may need.
    pub fn patient(&self) -> Value {
        let mut options = self.options();
        options["operation_timeout_secs"] = 240.into();
        options["silence_timeout_secs"] = 120.into();
        options["mount_timeout_secs"] = 120.into();
        options
    }
}

impl World {
    /// It crashes: what was not committed is gone, and its next life begins.
    pub fn crash(&mut self) {
        for file in self.files.values_mut().chain(&mut self.nameless) {
            file.dirty.clear();
        }
        self.verifier += 1;
        self.crashes += 1;
    }

    /// Another server takes the disk over.
    pub fn inherit(&mut self, from: &mut Self) {
        self.files = std::mem::take(&mut from.files);
        self.next = from.next;
        self.files.values_mut().for_each(|file| file.dirty.clear());
    }

    /// Puts a file there, as somebody on the server might.
    pub fn put(&mut self, name: &str, kind: ftype3, content: &[u8]) {
        self.next += 1;
        let file = File {
            fileid: self.next,
            kind,
            links: 1,
            disk: content.to_vec(),
            dirty: Vec::new(),
            token: [0; 8],
        };
        if let Some(mut old) = self.files.insert(name.to_owned(), file) {
            old.links = 0;
            self.nameless.push(old);
        }
    }

    fn by_id(&mut self, handle: &nfs_fh3) -> Result<&mut File, nfsstat3> {
        let id = u64::from_be_bytes(handle.data.as_ref().try_into().expect("eight bytes"));
        let mut all = self.files.values_mut().chain(&mut self.nameless);
        all.find(|file| file.fileid == id).ok_or(nfsstat3::NFS3ERR_STALE)
    }
}

const ROOT: u64 = 1;

fn handle(fileid: u64) -> nfs_fh3 {
    nfs_fh3 { data: Opaque::owned(fileid.to_be_bytes().to_vec()) }
}

fn attributes(file: &File) -> fattr3 {
    let size = file.content().len() as u64;
    let zero = nfstime3::default();
    fattr3 {
        type_: file.kind,
        mode: 0o600,
        nlink: file.links,
        uid: 0,
        gid: 0,
        size,
        used: size,
        rdev: specdata3::default(),
        fsid: 7,
        fileid: file.fileid,
        atime: zero,
        mtime: zero,
        ctime: zero,
    }
}

fn some(file: &File) -> post_op_attr {
    post_op_attr::Some(attributes(file))
}

fn after(file: &File) -> wcc_data {
    wcc_data { before: pre_op_attr::None, after: some(file) }
}

fn name_of(what: &diropargs3<'_>) -> String {
    String::from_utf8(what.name.as_ref().to_vec()).expect("UTF-8")
}

async fn serve(world: Arc<Mutex<World>>, mut stream: TcpStream) {
    stream.set_nodelay(true).expect("nodelay");
    let mut counts: BTreeMap<u32, u32> = BTreeMap::new();
    loop {
        let Ok(mark) = stream.read_u32().await else { return };
        let mut record = vec![0; (mark & 0x7fff_ffff) as usize];
        if stream.read_exact(&mut record).await.is_err() {
            return;
        }
        let mut input = &record[..];
        let (message, _) = rpc_msg::unpack(&mut input).expect("a call");
        let msg_body::CALL(call) = message.body else { panic!("no call") };
        assert_eq!(call.cred.flavor as u32, 1, "AUTH_SYS");
        let procedure = if call.prog == PROGRAM { call.proc } else { 1000 + call.proc };
        let count = counts.entry(procedure).or_default();
        *count += 1;
        let nth = *count;
        let body = {
            let mut world = world.lock().expect("world");
            if world.faults.dead {
                return;
            }
            let body = answer(&mut world, &call, &mut input);
            world.faults.count(procedure);
            body
        };
        let mut reply = Vec::new();
        let verf = opaque_auth::default();
        let accepted = accepted_reply { verf, reply_data: accept_stat_data::SUCCESS };
        let message =
            rpc_msg { xid: message.xid, body: msg_body::REPLY(reply_body::MSG_ACCEPTED(accepted)) };
        message.pack(&mut reply).expect("packed");
        reply.extend_from_slice(&body);
        let (mute, cut_after, cut_inside) = {
            let mut world = world.lock().expect("world");
            let hits = |fault: &mut Option<(u32, u32)>| {
                fault.take_if(|(at, times)| *at == procedure && nth >= *times).is_some()
            };
            let faults = &mut world.faults;
            (
                faults.mute == Some(procedure),
                hits(&mut faults.cut_after),
                hits(&mut faults.cut_inside),
            )
        };
        if mute {
            continue;
        }
        if cut_after {
            return;
        }
        let mark = (0x8000_0000 | reply.len() as u32).to_be_bytes();
        if cut_inside {
            reply.truncate(reply.len() / 2);
        }
        if stream.write_all(&[&mark[..], &reply].concat()).await.is_err() || cut_inside {
            return;
        }
    }
}

fn arguments<T: Unpack>(input: &mut &[u8]) -> T {
    T::unpack(input).expect("arguments").0
}

fn packed(value: &impl Pack) -> Vec<u8> {
    let mut out = Vec::new();
    value.pack(&mut out).expect("packed");
    out
}

/// Packs an outcome with the default of what goes with an error.
fn outcome<T: Pack, E: Pack + Default>(result: Result<T, nfsstat3>) -> Vec<u8> {
    packed(&match result {
        Ok(value) => Nfs3Result::Ok(value),
        Err(status) => Nfs3Result::Err((status, E::default())),
    })
}

fn answer(world: &mut World, call: &call_body<'_>, input: &mut &[u8]) -> Vec<u8> {
    if call.prog == nfs3_types::mount::PROGRAM {
        return mount(call.proc);
    }
    let procedure = NFS_PROGRAM::try_from(call.proc).expect("a procedure");
    let may_wait =
        [NFS_PROGRAM::NFSPROC3_WRITE, NFS_PROGRAM::NFSPROC3_COMMIT, NFS_PROGRAM::NFSPROC3_READ];
    let later = may_wait.contains(&procedure) && world.faults.later > 0;
    if later {
        world.faults.later -= 1;
    }
    let status = later.then_some(nfsstat3::NFS3ERR_JUKEBOX);
    match procedure {
        NFS_PROGRAM::NFSPROC3_NULL => packed(&Void),
        NFS_PROGRAM::NFSPROC3_GETATTR => {
            let GETATTR3args { object } = arguments(input);
            let found =
                world.by_id(&object).map(|file| GETATTR3resok { obj_attributes: attributes(file) });
            packed(&match found {
                Ok(found) => GETATTR3res::Ok(found),
                Err(status) => GETATTR3res::Err((status, Void)),
            })
        }
        NFS_PROGRAM::NFSPROC3_SETATTR => {
            outcome::<_, SETATTR3resfail>(set(world, arguments(input)))
        }
        NFS_PROGRAM::NFSPROC3_LOOKUP => {
            let LOOKUP3args { what } = arguments(input);
            let name = name_of(&what);
            world.asked.push(name.clone());
            let found = world.files.get(&name).ok_or(nfsstat3::NFS3ERR_NOENT);
            outcome::<_, LOOKUP3resfail>(found.map(|file| LOOKUP3resok {
                object: handle(file.fileid),
                obj_attributes: some(file),
                dir_attributes: post_op_attr::None,
            }))
        }
        NFS_PROGRAM::NFSPROC3_READ => {
            let arguments: READ3args = arguments(input);
            outcome::<_, READ3resfail>(status.map_or_else(|| read(world, &arguments), Err))
        }
        NFS_PROGRAM::NFSPROC3_WRITE => {
            let arguments: WRITE3args<'_> = arguments(input);
            outcome::<_, WRITE3resfail>(status.map_or_else(|| write(world, &arguments), Err))
        }
        NFS_PROGRAM::NFSPROC3_CREATE => {
            outcome::<_, CREATE3resfail>(create(world, arguments(input)))
        }
        NFS_PROGRAM::NFSPROC3_REMOVE => {
            let REMOVE3args { object } = arguments(input);
            let gone = world.files.remove(&name_of(&object)).ok_or(nfsstat3::NFS3ERR_NOENT);
            outcome::<_, REMOVE3resfail>(
                gone.map(|_| REMOVE3resok { dir_wcc: wcc_data::default() }),
            )
        }
        NFS_PROGRAM::NFSPROC3_RENAME => {
            let RENAME3args { from, to } = arguments(input);
            let moved = world.files.remove(&name_of(&from)).ok_or(nfsstat3::NFS3ERR_NOENT);
            outcome::<_, RENAME3resfail>(moved.map(|file| {
                world.files.insert(name_of(&to), file);
                RENAME3resok { fromdir_wcc: wcc_data::default(), todir_wcc: wcc_data::default() }
            }))
        }
        NFS_PROGRAM::NFSPROC3_READDIRPLUS => {
            packed(&READDIRPLUS3res::Ok(list(world, &arguments(input))))
        }
        NFS_PROGRAM::NFSPROC3_FSSTAT => packed(&FSSTAT3res::Ok(FSSTAT3resok {
            obj_attributes: post_op_attr::None,
            tbytes: 1 << 40,
            fbytes: 3 << 30,
            abytes: 1 << 30,
            tfiles: 9,
            ffiles: 9,
            afiles: 9,
            invarsec: 0,
        })),
        NFS_PROGRAM::NFSPROC3_FSINFO => packed(&FSINFO3res::Ok(FSINFO3resok {
            obj_attributes: post_op_attr::None,
            rtmax: 64 << 20,
            rtpref: 64 << 20,
            rtmult: 1,
            wtmax: 64 << 20,
            wtpref: 64 << 20,
            wtmult: 1,
            dtpref: 4096,
            maxfilesize: 1 << 40,
            time_delta: nfstime3::default(),
            properties: 0,
        })),
        NFS_PROGRAM::NFSPROC3_PATHCONF => packed(&PATHCONF3res::Ok(PATHCONF3resok {
            obj_attributes: post_op_attr::None,
            linkmax: 1,
            name_max: 255,
            no_trunc: true,
            chown_restricted: true,
            case_insensitive: false,
            case_preserving: true,
        })),
        NFS_PROGRAM::NFSPROC3_COMMIT => {
            let COMMIT3args { file, .. } = arguments(input);
            packed(&match status.map_or_else(|| commit(world, &file), Err) {
                Ok(done) => COMMIT3res::Ok(done),
                Err(status) => {
                    COMMIT3res::Err((status, COMMIT3resfail { file_wcc: wcc_data::default() }))
                }
            })
        }
        other => panic!("{other} is not known here"),
    }
}

fn mount(procedure: u32) -> Vec<u8> {
    match MOUNT_PROGRAM::try_from(procedure).expect("a procedure") {
        MOUNT_PROGRAM::MOUNTPROC3_MNT => packed(&mountres3::Ok(mountres3_ok {
            fhandle: fhandle3(Opaque::owned(ROOT.to_be_bytes().to_vec())),
            auth_flavors: vec![1],
        })),
        MOUNT_PROGRAM::MOUNTPROC3_EXPORT => {
            let all: exports<'_, '_> = List(vec![export_node {
                ex_dir: dirpath(Opaque::borrowed(b"/fake")),
                ex_groups: List(Vec::new()),
            }]);
            packed(&all)
        }
        _ => packed(&Void),
    }
}

fn set(world: &mut World, arguments: SETATTR3args) -> Result<SETATTR3resok, nfsstat3> {
    let file = world.by_id(&arguments.object)?;
    if let set_size3::Some(size) = arguments.new_attributes.size {
        file.disk = file.content();
        file.dirty.clear();
        file.disk.resize(size as usize, 0);
    }
    Ok(SETATTR3resok { obj_wcc: after(file) })
}

fn read(world: &mut World, arguments: &READ3args) -> Result<READ3resok<'static>, nfsstat3> {
    let (most, too_much) = (world.faults.at_most, world.faults.too_much);
    let content = world.by_id(&arguments.file)?.content();
    let mut count = arguments.count.min(most.unwrap_or(u32::MAX));
    if too_much {
        count += 4096;
    }
    let start = content.len().min(arguments.offset as usize);
    let end = content.len().min(start + count as usize);
    let data = content[start..end].to_vec();
    Ok(READ3resok {
        file_attributes: post_op_attr::None,
        count: data.len() as u32,
        eof: end == content.len(),
        data: Opaque::owned(data),
    })
}

fn write(world: &mut World, arguments: &WRITE3args<'_>) -> Result<WRITE3resok, nfsstat3> {
    world.writes += 1;
    // Before the write, so that what it is told is what came of it.
    if world.faults.crash_every > 0 && world.writes.is_multiple_of(world.faults.crash_every) {
        world.crash();
    }
    if world.faults.full {
        return Err(nfsstat3::NFS3ERR_NOSPC);
    }
    let count = arguments.count.min(world.faults.at_most.unwrap_or(u32::MAX));
    let verf = writeverf3(world.verifier.to_be_bytes());
    let file = world.by_id(&arguments.file)?;
    let data = arguments.data.as_ref()[..count as usize].to_vec();
    if arguments.stable == stable_how::UNSTABLE {
        file.dirty.push((arguments.offset, data));
    } else {
        let hasty = !file.dirty.is_empty();
        // What is older is on the disk as well then, or it would come back over this.
        file.disk = file.content();
        file.dirty.clear();
        put(&mut file.disk, arguments.offset, &data);
        world.hasty += u64::from(hasty);
    }
    let file = world.by_id(&arguments.file)?;
    Ok(WRITE3resok { file_wcc: after(file), count, committed: arguments.stable, verf })
}

fn commit(world: &mut World, handle: &nfs_fh3) -> Result<COMMIT3resok, nfsstat3> {
    let (full, verf) = (world.faults.full_at_commit, writeverf3(world.verifier.to_be_bytes()));
    let file = world.by_id(handle)?;
    if full {
        file.dirty.clear();
        return Err(nfsstat3::NFS3ERR_NOSPC);
    }
    file.disk = file.content();
    file.dirty.clear();
    Ok(COMMIT3resok { file_wcc: after(file), verf })
}

fn create(world: &mut World, arguments: CREATE3args<'_>) -> Result<CREATE3resok, nfsstat3> {
    let name = name_of(&arguments.where_);
    let createhow3::EXCLUSIVE(token) = arguments.how else { panic!("not exclusive") };
    if let Some(file) = world.files.get(&name) {
        if file.token != token.0 {
            return Err(nfsstat3::NFS3ERR_EXIST);
        }
    } else {
        world.put(&name, ftype3::NF3REG, &[]);
        world.files.get_mut(&name).expect("put").token = token.0;
    }
    let file = &world.files[&name];
    Ok(CREATE3resok {
        obj: post_op_fh3::Some(handle(file.fileid)),
        obj_attributes: some(file),
        dir_wcc: wcc_data::default(),
    })
}

fn list(world: &World, arguments: &READDIRPLUS3args) -> READDIRPLUS3resok<'static> {
    // One entry at a time, so that paging is seen.
    let next = world.files.iter().nth(arguments.cookie as usize);
    let entries = next.into_iter().map(|(name, file)| entryplus3 {
        fileid: file.fileid,
        name: filename3::from(name.clone().into_bytes()),
        cookie: arguments.cookie + 1,
        name_attributes: some(file),
        name_handle: post_op_fh3::None,
    });
    READDIRPLUS3resok {
        dir_attributes: post_op_attr::None,
        cookieverf: cookieverf3::default(),
        reply: dirlistplus3 {
            entries: List(entries.collect()),
            eof: arguments.cookie as usize + 1 >= world.files.len(),
        },
    }
}
