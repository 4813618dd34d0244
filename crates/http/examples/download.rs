//! How fast a large answer comes in over loopback: `cargo run --release -p towpath-http --example download`.
#![allow(clippy::print_stdout, clippy::unwrap_used)]

use std::time::Instant;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use towpath_core::{Context, Result};
use towpath_http::{Client, HttpOptions, Proxy, Request};

const SIZE: usize = 4 << 30;

#[tokio::main]
async fn main() -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap()).parse().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = [0; 4096];
        let _ = stream.read(&mut head).await.unwrap();
        stream.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\n\r\n").as_bytes()).await.unwrap();
        let piece = vec![b'x'; 1 << 20];
        for _ in 0..SIZE / piece.len() {
            stream.write_all(&piece).await.unwrap();
        }
    });
    let options = HttpOptions { proxy: Proxy::Direct, ..HttpOptions::default() };
    let client = Client::new(&options, &Context::bare("download"))?;
    let start = Instant::now();
    let mut response = client.send(Request::get(url)).await?;
    let (mut bytes, mut chunks) = (0, 0u64);
    while let Some(chunk) = response.chunk().await? {
        bytes += chunk.len();
        chunks += 1;
    }
    let seconds = start.elapsed().as_secs_f64();
    println!(
        "{} MB in {seconds:.1} s: {:.0} MB/s, {} KiB a chunk",
        bytes / 1_000_000,
        bytes as f64 / 1e6 / seconds,
        bytes as u64 / chunks / 1024
    );
    Ok(())
}
