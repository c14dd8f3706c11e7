//! A bucket, on a server that is as strict as AWS.

use std::sync::Arc;

use aws_sdk_s3::config::{Credentials, SharedCredentialsProvider};
use pgslice::config::{Checksum, S3Config, StoreConfig};
use pgslice::store::s3::S3Store;
use pgslice::store::{Access, SharedStore};

use super::{conforms, reads_conform};
use crate::s3_server::StrictS3;

/// A new prefix of the server's bucket, with the smallest parts that it takes.
pub(crate) fn prefix_of(server: &StrictS3) -> StoreConfig {
    let s3 = S3Config {
        endpoint: Some(server.endpoint().to_owned()),
        region: Some(server.region().to_owned()),
        part_bytes: 5 << 20,
        ..S3Config::default()
    };
    StoreConfig { s3, ..StoreConfig::at(format!("s3://{}/{}", server.bucket(), server.new_prefix())) }
}

/// The store of `config`, as the server's writer.
pub(crate) async fn opened(server: &StrictS3, config: &StoreConfig, access: Access) -> anyhow::Result<SharedStore> {
    let credentials = Credentials::new(server.access_key(), server.secret_key(), None, None, "tests");
    let credentials = Some(SharedCredentialsProvider::new(credentials));
    let url = config.url.as_deref().expect("a url");
    Ok(Arc::new(S3Store::open_as(credentials, url, config, access).await?))
}

#[tokio::test(flavor = "multi_thread")]
async fn it_conforms_with_every_checksum() {
    let server = StrictS3::shared();
    for checksum in [Checksum::Crc32, Checksum::Crc64Nvme, Checksum::WhenRequired] {
        conforms(async || {
            let mut config = prefix_of(server);
            config.s3.checksum = checksum;
            opened(server, &config, Access::ReadWrite).await.expect("opened")
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_read_by_those_who_may_only_read() {
    let server = StrictS3::shared();
    reads_conform(async || {
        let config = prefix_of(server);
        let writer = opened(server, &config, Access::ReadWrite).await.expect("opened");
        (writer, opened(server, &config, Access::ReadOnly).await.expect("opened"))
    })
    .await;
}
