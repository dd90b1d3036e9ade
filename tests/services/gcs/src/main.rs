// SPDX-License-Identifier: Apache-2.0
//! `gcs-fake keys` makes a service account, `gcs-fake serve` plays Google Cloud Storage for it.

use std::error::Error;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Parser, Subcommand};
use gcs_fake::{Account, Fake, keys, serve};
use tokio::net::TcpListener;

/// Plays Google Cloud Storage for tests.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Makes a service account: service-account.json and, for a server with TLS, service-account-tls.json.
    Keys {
        /// Where the files go.
        #[arg(long)]
        dir: PathBuf,
        /// The account's project.
        #[arg(long, default_value = "novastor-test")]
        project: String,
        /// Where the server without TLS will be.
        #[arg(long)]
        url: String,
        /// Where the server with TLS will be.
        #[arg(long)]
        tls_url: String,
    },
    /// Serves until the process ends.
    Serve {
        /// Where `keys` made the service account.
        #[arg(long)]
        dir: PathBuf,
        /// Where objects are stored.
        #[arg(long)]
        data: PathBuf,
        /// Address and port.
        #[arg(long)]
        listen: SocketAddr,
        /// A certificate for TLS, PEM.
        #[arg(long, requires = "key")]
        cert: Option<PathBuf>,
        /// The certificate's key, PEM.
        #[arg(long, requires = "cert")]
        key: Option<PathBuf>,
    },
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    match Arguments::parse().command {
        Command::Keys { dir, project, url, tls_url } => keys::make(&dir, &project, &url, &tls_url),
        Command::Serve { dir, data, listen, cert, key } => {
            let tls = match (cert, key) {
                (Some(cert), Some(key)) => Some(serve::certificate(&cert, &key)?),
                _ => None,
            };
            let fake = Fake::open(Account::load(&dir)?, &data)?;
            let listener =
                TcpListener::bind(listen).await.map_err(|error| format!("{listen}: {error}"))?;
            match serve(fake, listener, tls).await? {}
        }
    }
}
