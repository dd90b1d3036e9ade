// SPDX-License-Identifier: Apache-2.0
//! The server: HTTP or TLS on a socket that is bound already.

use std::convert::Infallible;
use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::response::Response;
use axum::serve::{Listener, ListenerExt};
use axum::{Router, serve as http};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::dispatch::dispatch;
use crate::keys::Account;
use crate::store::Store;

/// How long a client may take to shake hands.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// A store of objects and the account that may use it.
pub struct Fake {
    pub(crate) account: Account,
    pub(crate) store: Store,
}

impl Fake {
    /// Opens what is stored in `data`, or begins with nothing.
    ///
    /// # Errors
    ///
    /// The directory cannot be used, or its journal is not one of this program.
    pub fn open(account: Account, data: &Path) -> io::Result<Self> {
        Ok(Self { account, store: Store::open(data)? })
    }
}

/// A certificate for TLS, PEM, from two files.
///
/// # Errors
///
/// A file cannot be read, or they do not belong together.
pub fn certificate(chain: &Path, key: &Path) -> Result<ServerConfig, Box<dyn Error>> {
    let chain = CertificateDer::pem_file_iter(chain)?.collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_file(key)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let versions =
        ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(versions.with_no_client_auth().with_single_cert(chain, key)?)
}

/// Serves until the process ends.
///
/// # Errors
///
/// The socket cannot be used.
pub async fn serve(
    fake: Fake,
    listener: TcpListener,
    tls: Option<ServerConfig>,
) -> io::Result<Infallible> {
    let router = Router::new().fallback(answer).with_state(Arc::new(fake));
    match tls {
        // Small answers must not wait for the client's acknowledgement of what came before them.
        None => http(listener.tap_io(|stream| drop(stream.set_nodelay(true))), router).await?,
        Some(config) => http(Tls::new(listener, config)?, router).await?,
    }
    Err(io::Error::other("the server has ended"))
}

async fn answer(State(fake): State<Arc<Fake>>, request: Request) -> Response {
    dispatch(&fake, request).await
}

/// Accepts connections whose handshakes are done, so that a client that is slow with its own delays nobody.
struct Tls {
    address: SocketAddr,
    ready: mpsc::Receiver<(TlsStream<TcpStream>, SocketAddr)>,
}

impl Tls {
    fn new(listener: TcpListener, config: ServerConfig) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let (sender, ready) = mpsc::channel(16);
        tokio::spawn(shake_hands(listener, TlsAcceptor::from(Arc::new(config)), sender));
        Ok(Self { address, ready })
    }
}

async fn shake_hands(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    ready: mpsc::Sender<(TlsStream<TcpStream>, SocketAddr)>,
) {
    loop {
        let (stream, address) = match listener.accept().await {
            Ok(accepted) => accepted,
            // Too many open files, most likely: some will be closed.
            Err(_) => {
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let (acceptor, ready) = (acceptor.clone(), ready.clone());
        tokio::spawn(async move {
            let _ = stream.set_nodelay(true);
            if let Ok(Ok(stream)) = timeout(HANDSHAKE, acceptor.accept(stream)).await {
                let _ = ready.send((stream, address)).await;
            }
        });
    }
}

impl Listener for Tls {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        match self.ready.recv().await {
            Some(accepted) => accepted,
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }
}
