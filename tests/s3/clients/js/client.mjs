// Drives the AWS SDK for JavaScript v3 against ENDPOINT and BUCKET; exits 0 if all of it came back as it was stored.
// Arguments: the round trips to run (see the table at the end). Keys come from the environment, as the SDK reads them.

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { createReadStream, createWriteStream } from "node:fs";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";

import {
  CopyObjectCommand,
  DeleteObjectCommand,
  DeleteObjectsCommand,
  GetObjectCommand,
  HeadObjectCommand,
  ListObjectsV2Command,
  PutObjectCommand,
  S3Client,
  paginateListObjectsV2,
} from "@aws-sdk/client-s3";
import { Upload } from "@aws-sdk/lib-storage";
import { getSignedUrl } from "@aws-sdk/s3-request-presigner";

const { ENDPOINT, BUCKET: Bucket } = process.env;
const MIB = 1 << 20;

const options = { endpoint: ENDPOINT, region: "us-east-1", forcePathStyle: true, maxAttempts: 1 };
const client = new S3Client(options);

// Bytes that neither compress nor repeat, the same in every run.
function data(size, seed) {
  const blocks = [];
  let block = createHash("sha512").update(String(seed)).digest();
  for (let made = 0; made < size; made += block.length) {
    blocks.push(block);
    block = createHash("sha512").update(block).digest();
  }
  return Buffer.concat(blocks).subarray(0, size);
}

async function read(Key, more = {}) {
  const answer = await client.send(new GetObjectCommand({ Bucket, Key, ...more }));
  return Buffer.from(await answer.Body.transformToByteArray());
}

async function sizes() {
  for (const size of [0, 1, 5 * MIB, 5 * MIB + 1]) {
    const body = data(size, size);
    const put = await client.send(new PutObjectCommand({ Bucket, Key: `size-${size}`, Body: body }));
    assert.equal(put.ETag, `"${createHash("md5").update(body).digest("hex")}"`);
    assert.deepEqual(await read(`size-${size}`), body);
  }
}

async function streams() {
  const body = data(3 * MIB + 7, "stream");
  const Body = Readable.from([body.subarray(0, 1000), body.subarray(1000)]);
  await client.send(new PutObjectCommand({ Bucket, Key: "streamed", Body, ContentLength: body.length }));
  assert.deepEqual(await read("streamed"), body);
  assert.deepEqual(await read("streamed", { Range: "bytes=100-199" }), body.subarray(100, 200));
}

async function parts() {
  const body = data(17 * MIB + 3, "parts");
  const params = { Bucket, Key: "in parts", Body: Readable.from([body]), ContentType: "text/x", Metadata: { a: "b" } };
  const done = await new Upload({ client, params, partSize: 5 * MIB, queueSize: 3 }).done();
  assert.match(done.ETag, /-4"$/);
  assert.deepEqual(await read("in parts"), body);
  const head = await client.send(new HeadObjectCommand({ Bucket, Key: "in parts" }));
  assert.equal(head.ContentLength, body.length);
  assert.equal(head.ContentType, "text/x");
  assert.deepEqual(head.Metadata, { a: "b" });
}

async function names() {
  const keys = ["k'1 (é)+*!x", "a b", "a+b", "%2F", "//double", "dir/", "ünï/🎉", "x".repeat(1024), "a&b<c>\"d\""];
  for (const Key of keys) {
    await client.send(new PutObjectCommand({ Bucket, Key: `names/${Key}`.slice(0, 1024), Body: Key }));
  }
  const listed = [];
  for await (const page of paginateListObjectsV2({ client, pageSize: 2 }, { Bucket, Prefix: "names/" })) {
    listed.push(...(page.Contents ?? []).map((entry) => entry.Key));
  }
  const byBytes = (a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b));
  assert.deepEqual(listed, keys.map((key) => `names/${key}`.slice(0, 1024)).sort(byBytes));
  for (const Key of listed) {
    assert.ok((await read(Key)).length > 0);
  }
  const CopySource = `${Bucket}/${encodeURIComponent(listed[0])}`;
  await client.send(new CopyObjectCommand({ Bucket, Key: "copied", CopySource }));
  assert.deepEqual(await read("copied"), await read(listed[0]));
  const Delete = { Objects: listed.map((Key) => ({ Key })) };
  const deleted = await client.send(new DeleteObjectsCommand({ Bucket, Delete }));
  assert.equal(deleted.Deleted.length, keys.length);
  const left = await client.send(new ListObjectsV2Command({ Bucket, Prefix: "names/" }));
  assert.equal(left.KeyCount, 0);
}

async function presigned() {
  const Key = "presigned +ü";
  // By default the SDK signs the checksum of an empty body into a URL for PUT, which no body can then fulfil.
  const signer = new S3Client({ ...options, requestChecksumCalculation: "WHEN_REQUIRED" });
  const put = await getSignedUrl(signer, new PutObjectCommand({ Bucket, Key }), { expiresIn: 60 });
  const stored = await fetch(put, { method: "PUT", body: "by url" });
  assert.equal(stored.status, 200, await stored.text());
  const get = await getSignedUrl(signer, new GetObjectCommand({ Bucket, Key }), { expiresIn: 60 });
  assert.equal(await (await fetch(get)).text(), "by url");
  signer.destroy();
}

async function errors() {
  const missing = client.send(new GetObjectCommand({ Bucket, Key: "missing" }));
  await assert.rejects(missing, (error) => error.name === "NoSuchKey" && error.$metadata.httpStatusCode === 404);
  const head = client.send(new HeadObjectCommand({ Bucket, Key: "missing" }));
  await assert.rejects(head, (error) => error.name === "NotFound");
  await client.send(new PutObjectCommand({ Bucket, Key: "once", Body: "1", IfNoneMatch: "*" }));
  const again = client.send(new PutObjectCommand({ Bucket, Key: "once", Body: "2", IfNoneMatch: "*" }));
  await assert.rejects(again, (error) => error.name === "PreconditionFailed");
  await client.send(new DeleteObjectCommand({ Bucket, Key: "once" }));
}

async function checksums() {
  for (const ChecksumAlgorithm of ["CRC32", "SHA1", "SHA256"]) {
    const body = data(100_000, ChecksumAlgorithm);
    await client.send(new PutObjectCommand({ Bucket, Key: ChecksumAlgorithm, Body: body, ChecksumAlgorithm }));
    assert.deepEqual(await read(ChecksumAlgorithm, { ChecksumMode: "ENABLED" }), body);
  }
}

async function file() {
  const { SOURCE, TARGET } = process.env;
  const params = { Bucket, Key: "file", Body: createReadStream(SOURCE) };
  await new Upload({ client, params, partSize: 16 * MIB }).done();
  const answer = await client.send(new GetObjectCommand({ Bucket, Key: "file" }));
  await pipeline(answer.Body, createWriteStream(TARGET));
}

const trips = { sizes, streams, parts, names, presigned, errors, checksums, file };

for (const name of process.argv.slice(2)) {
  await trips[name]();
  console.log(`ok ${name}`);
}
client.destroy();
