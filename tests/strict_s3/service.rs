//! HTTP around the operations: connections, request ids, the record, and what `s3s` cannot say.

use std::borrow::Cow;
use std::convert::Infallible;
use std::fs::File;
use std::io::Write;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use anyhow::Context as _;
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s::{S3Error, S3ErrorCode};
use tokio::net::TcpListener;

use crate::access::{Rules, Secrets};
use crate::arguments::Arguments;
use crate::backend::Backend;
use crate::urls;

/// A header within this program: the storage class to name in an InvalidObjectState error, which `s3s` has no field
/// for.
pub(crate) const ARCHIVED: HeaderName = HeaderName::from_static("x-strict-s3-archived");

const REQUEST_ID: HeaderName = HeaderName::from_static("x-amz-request-id");

/// The body of a DeleteObjects request, for its checksum.
#[derive(Clone, Debug)]
pub(crate) struct WholeBody(pub(crate) Bytes);

/// The server, without its socket.
pub(crate) struct Service {
    s3: S3Service,
    record: Option<Mutex<File>>,
    requests: AtomicU64,
}

impl Service {
    pub(crate) fn new(arguments: &Arguments) -> anyhow::Result<Arc<Service>> {
        let mut builder = S3ServiceBuilder::new(Backend::new(arguments));
        builder.set_auth(Secrets::new(&arguments.keys));
        builder.set_access(Rules::new(arguments));
        let open = |path| File::options().create(true).append(true).open(path);
        let record = arguments.record.as_ref().map(open).transpose().context("open the record")?;
        let requests = AtomicU64::default();
        Ok(Arc::new(Service { s3: builder.build(), record: record.map(Mutex::new), requests }))
    }

    /// Serves HTTP/1.1 until the process ends. Every Host is taken; buckets are in the path.
    pub(crate) async fn serve(self: Arc<Service>, listener: TcpListener) -> anyhow::Result<()> {
        loop {
            let (stream, _client) = listener.accept().await.context("accept a connection")?;
            stream.set_nodelay(true).context("set an option")?;
            let service = Arc::clone(&self);
            tokio::spawn(async move {
                let answer = service_fn(|request| service.answer(request));
                // A client that goes away is no fault of the server.
                let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await;
            });
        }
    }

    async fn answer(&self, request: Request<Incoming>) -> Result<Response<s3s::Body>, Infallible> {
        let (operation, key) = urls::described(request.method(), request.uri());
        let (mut head, body) = request.into_parts();
        let body = Shared(Arc::new(Mutex::new(body)));
        let mut rest = Shared(Arc::clone(&body.0));
        let body = if operation == "DeleteObjects" {
            // When the client is gone nobody reads the answer.
            let bytes = body.collect().await.map_or_else(|_| Bytes::new(), http_body_util::Collected::to_bytes);
            head.extensions.insert(WholeBody(bytes.clone()));
            s3s::Body::from(bytes)
        } else {
            s3s::Body::http_body_unsync(body)
        };
        let answer = self.s3.call(Request::from_parts(head, body)).await;
        // A client that is refused early still sends its body, and would not read an answer before that.
        while let Some(Ok(_)) = rest.frame().await {}
        let mut answer = answer.unwrap_or_else(|_| status(StatusCode::INTERNAL_SERVER_ERROR));
        complete(&mut answer);
        let id = self.requests.fetch_add(1, Ordering::Relaxed);
        let id = HeaderValue::from_str(&format!("{id:016X}")).expect("hexadecimal digits");
        answer.headers_mut().insert(REQUEST_ID, id);
        if let Some(record) = &self.record {
            let line = format!("{operation} {key} {}\n", answer.status().as_u16());
            let written = record.lock().expect("nothing panics under this lock").write_all(line.as_bytes());
            if written.is_err() {
                // A record with a hole would be believed.
                answer = status(StatusCode::INSUFFICIENT_STORAGE);
            }
        }
        Ok(answer)
    }
}

/// 400 with a code that `s3s` does not know.
pub(crate) fn bad_request(code: &'static str, message: impl Into<Cow<'static, str>>) -> S3Error {
    let mut error = S3Error::with_message(S3ErrorCode::Custom(code.into()), message);
    error.set_status_code(StatusCode::BAD_REQUEST);
    error
}

fn status(status: StatusCode) -> Response<s3s::Body> {
    let mut answer = Response::new(s3s::Body::empty());
    *answer.status_mut() = status;
    answer
}

/// Does what `s3s` leaves undone. Source: S3 API, GetObject, InvalidObjectState; RFC 9110 15.4.5: 304 has no content.
fn complete(answer: &mut Response<s3s::Body>) {
    if answer.status() == StatusCode::NOT_MODIFIED {
        *answer.body_mut() = s3s::Body::empty();
    }
    let Some(storage_class) = answer.headers_mut().remove(ARCHIVED) else { return };
    let xml = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>InvalidObjectState</Code><Message>The operation is \
         not valid for the object's storage class</Message><StorageClass>{}</StorageClass></Error>",
        storage_class.to_str().unwrap_or_default()
    );
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/xml"));
    *answer.body_mut() = xml.into();
}

/// A request's body, of which somebody else reads what is left.
struct Shared(Arc<Mutex<Incoming>>);

impl Body for Shared {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        Pin::new(&mut *self.0.lock().expect("nothing panics under this lock")).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.0.lock().expect("nothing panics under this lock").is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.lock().expect("nothing panics under this lock").size_hint()
    }
}
