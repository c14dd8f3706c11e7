"""What the trial does to a bucket behind pgslice's back: by boto3, with the keys of the environment.

usage: client.py ENDPOINT BUCKET ORDER [ARGUMENT…]
"""

import json
import select
import sys
from concurrent.futures import ThreadPoolExecutor

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

ENDPOINT, BUCKET, ORDER, *ARGUMENTS = sys.argv[1:]
ROUNDS = 30
RACERS = 6
# One attempt and no checksum of its own making: what is seen is what the server does.
S3 = boto3.client(
    "s3",
    endpoint_url=ENDPOINT,
    region_name="us-east-1",
    config=Config(
        retries={"total_max_attempts": 1},
        s3={"addressing_style": "path"},
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    ),
)


def create():
    S3.create_bucket(Bucket=BUCKET)


def let_read(user):
    """A policy: that user may read and list the bucket."""
    arn = f"arn:aws:s3:::{BUCKET}"
    S3.put_bucket_policy(
        Bucket=BUCKET,
        Policy=json.dumps(
            {
                "Version": "2012-10-17",
                "Statement": [
                    {
                        "Effect": "Allow",
                        "Principal": {"AWS": [f"arn:aws:iam:::user/{user}"]},
                        "Action": ["s3:GetObject", "s3:ListBucket"],
                        "Resource": [arn, f"{arn}/*"],
                    }
                ],
            }
        ),
    )


def uploads():
    return S3.list_multipart_uploads(Bucket=BUCKET).get("Uploads", [])


def open_uploads():
    """How many uploads are neither completed nor aborted."""
    print(len(uploads()))


def watch():
    """How many uploads were seen under way until a line arrives."""
    seen = set()
    while not select.select([sys.stdin], [], [], 0.05)[0]:
        seen.update(upload["UploadId"] for upload in uploads())
    print(len(seen))


def objects(prefix):
    pages = S3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
    return [entry for page in pages for entry in page.get("Contents", [])]


def count(prefix):
    print(len(objects(prefix)))


def parts(entry):
    """Of how many parts a listed object is: the ETag of one that came in parts says it."""
    return int(entry["ETag"].strip('"').partition("-")[2] or 1)


def most_parts(prefix):
    print(max(map(parts, objects(prefix)), default=0))


def describe(prefix):
    """What the server says of the slices below that prefix."""
    described = []
    for entry in objects(prefix):
        if entry["Key"].endswith(".zst"):
            head = S3.head_object(Bucket=BUCKET, Key=entry["Key"])
            told = [head.get("StorageClass", "no class"), head.get("ServerSideEncryption", "no encryption")]
            try:
                tags = S3.get_object_tagging(Bucket=BUCKET, Key=entry["Key"]).get("TagSet", [])
                told.append(" ".join(f"{tag['Key']}={tag['Value']}" for tag in tags) or "no tags")
            except ClientError as error:
                told.append(f"tags: {error.response['Error']['Code']}")
            described.append(f"of {parts(entry)} parts: {', '.join(told)}")
    print("; ".join(described) or "no slice")


def answer(request, **arguments):
    try:
        return f"{request(Bucket=BUCKET, **arguments)['ResponseMetadata']['HTTPStatusCode']}"
    except ClientError as error:
        return f"{error.response['ResponseMetadata']['HTTPStatusCode']} {error.response['Error']['Code']}"


def multipart(key):
    upload = S3.create_multipart_upload(Bucket=BUCKET, Key=key)["UploadId"]
    part = S3.upload_part(Bucket=BUCKET, Key=key, UploadId=upload, PartNumber=1, Body=b"part")
    return {"Key": key, "UploadId": upload, "MultipartUpload": {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}}


def races(replacing):
    """How many races had one winner. The ETag to be replaced is named as the server takes it."""
    won_by_one = 0
    for number in range(ROUNDS):
        key = f"conditions/race-{replacing}-{number}"
        condition = {"IfNoneMatch": "*"}
        if replacing:
            seen = S3.put_object(Bucket=BUCKET, Key=key, Body=b"0")["ETag"]
            if not answer(S3.put_object, Key=key, Body=b"0", IfMatch=seen).startswith("200"):
                seen = seen.strip('"')
            condition = {"IfMatch": seen}
        with ThreadPoolExecutor(RACERS) as racers:
            writes = [
                racers.submit(answer, S3.put_object, Key=key, Body=f"{racer + 1}".encode(), **condition)
                for racer in range(RACERS)
            ]
        winners = sum(write.result().startswith("200") for write in writes)
        won_by_one += winners == 1
    return f"one won in {won_by_one}"


def conditions():
    """The answers to conditional writes: of each pair the first should be 200, the second 412."""
    key = "conditions/put"
    new, taken = (answer(S3.put_object, Key=key, Body=b"1", IfNoneMatch="*") for _ in range(2))
    print(f"PUT If-None-Match: new {new}; taken {taken}")
    right = S3.head_object(Bucket=BUCKET, Key=key)["ETag"]
    kept = answer(S3.put_object, Key=key, Body=b"2", IfMatch=right)
    other = answer(S3.put_object, Key=key, Body=b"3", IfMatch='"00000000000000000000000000000000"')
    print(f"PUT If-Match: same {kept}; other {other}")
    right = S3.head_object(Bucket=BUCKET, Key=key)["ETag"].strip('"')
    kept = answer(S3.put_object, Key=key, Body=b"4", IfMatch=right)
    print(f"PUT If-Match without the ETag's quotes: same {kept}")
    key = "conditions/completed"
    new, taken = (answer(S3.complete_multipart_upload, IfNoneMatch="*", **multipart(key)) for _ in range(2))
    print(f"Complete If-None-Match: new {new}; taken {taken}")
    print(f"{ROUNDS} races of {RACERS} writers: If-None-Match {races(False)}; If-Match {races(True)}")
    for upload in uploads():
        S3.abort_multipart_upload(Bucket=BUCKET, Key=upload["Key"], UploadId=upload["UploadId"])
    for entry in objects("conditions/"):
        S3.delete_object(Bucket=BUCKET, Key=entry["Key"])


ORDERS = {
    "create": create,
    "let-read": let_read,
    "open-uploads": open_uploads,
    "watch": watch,
    "count": count,
    "most-parts": most_parts,
    "describe": describe,
    "conditions": conditions,
}
ORDERS[ORDER](*ARGUMENTS)
