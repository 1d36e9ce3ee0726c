//! `s3-double`: the strict S3 server as a program. Prints its address as the first line on standard output.

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use s3_double::{Bucket, Credential, Permissions, Server, Settings};

/// A strict S3 server for tests and for trying things out. Listens on loopback only.
#[derive(Parser)]
#[command(name = "s3-double")]
struct Arguments {
    /// Where to listen; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Where objects are kept.
    #[arg(long)]
    dir: PathBuf,
    /// A bucket to serve; may be given several times.
    #[arg(long, value_name = "NAME[:archive]", required = true)]
    bucket: Vec<Bucket>,
    /// The region that requests must be signed for.
    #[arg(long)]
    region: String,
    /// Id of the credential.
    #[arg(long)]
    access_key: String,
    /// File that holds the secret, on one line.
    #[arg(long)]
    secret_key_file: PathBuf,
    /// What the credential may do.
    #[arg(
        long,
        default_value = "all",
        value_name = "all | create,overwrite,delete,inspect,read,restore"
    )]
    permissions: Permissions,
    /// Cap on what is received, in bytes per second.
    #[arg(long)]
    bandwidth: Option<u64>,
    /// How long every request takes at least, in milliseconds.
    #[arg(long, default_value_t = 0)]
    latency: u64,
    /// How long a restore from archive takes, in seconds.
    #[arg(long, default_value_t = 3600)]
    restore_delay: u64,
    /// Smallest part but the last, in bytes.
    #[arg(long, default_value_t = 10 * 1024 * 1024)]
    minimum_part: u64,
}

#[tokio::main(worker_threads = 2)]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let secret_key = match std::fs::read_to_string(&arguments.secret_key_file) {
        Ok(text) => text.trim_end_matches(['\r', '\n']).to_owned(),
        Err(error) => {
            eprintln!(
                "s3-double: cannot read {}: {error}",
                arguments.secret_key_file.display()
            );
            return ExitCode::FAILURE;
        }
    };
    let settings = Settings {
        listen: arguments.listen,
        buckets: arguments.bucket,
        credentials: vec![Credential {
            access_key: arguments.access_key,
            secret_key,
            permissions: arguments.permissions,
        }],
        minimum_part: arguments.minimum_part,
        restore_delay: Duration::from_secs(arguments.restore_delay),
        bandwidth: arguments.bandwidth,
        latency: Duration::from_millis(arguments.latency),
        ..Settings::new(arguments.dir, arguments.region)
    };
    match Server::start(settings).await {
        Ok(server) => {
            println!("{}", server.address());
            let _ = std::io::stdout().flush();
            std::future::pending().await
        }
        Err(error) => {
            eprintln!("s3-double: {error}");
            ExitCode::FAILURE
        }
    }
}
