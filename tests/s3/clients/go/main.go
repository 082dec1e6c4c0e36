// Command client drives the AWS SDK for Go v2 against ENDPOINT and BUCKET. It exits 0 if all that it stored came back
// as it was. Keys come from the environment.
package main

import (
	"bytes"
	"context"
	"crypto/md5"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand"
	"net/http"
	"os"
	"sort"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/feature/s3/manager"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go"
)

const mib = 1 << 20

var (
	ctx    = context.Background()
	bucket = aws.String(os.Getenv("BUCKET"))
	client = newClient()
)

func newClient() *s3.Client {
	keys := credentials.NewStaticCredentialsProvider(
		os.Getenv("AWS_ACCESS_KEY_ID"), os.Getenv("AWS_SECRET_ACCESS_KEY"), "")
	return s3.New(s3.Options{
		BaseEndpoint:     aws.String(os.Getenv("ENDPOINT")),
		Region:           "us-east-1",
		Credentials:      keys,
		UsePathStyle:     true,
		RetryMaxAttempts: 1,
	})
}

// must ends the program when a round trip failed.
func must(err error) {
	if err != nil {
		panic(err)
	}
}

func check(holds bool, claim string, shown ...any) {
	if !holds {
		panic(fmt.Sprintf(claim, shown...))
	}
}

// data is random, but the same in every run.
func data(size int) []byte {
	made := make([]byte, size)
	rand.New(rand.NewSource(int64(size))).Read(made)
	return made
}

func read(key string, byteRange string) []byte {
	input := &s3.GetObjectInput{Bucket: bucket, Key: aws.String(key), ChecksumMode: types.ChecksumModeEnabled}
	if byteRange != "" {
		input.Range = aws.String(byteRange)
	}
	answer, err := client.GetObject(ctx, input)
	must(err)
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	must(err)
	return body
}

func sizes() {
	for _, size := range []int{0, 1, 5 * mib, 5*mib + 1} {
		key, body := fmt.Sprintf("size-%d", size), data(size)
		put, err := client.PutObject(ctx, &s3.PutObjectInput{Bucket: bucket, Key: aws.String(key), Body: bytes.NewReader(body)})
		must(err)
		sum := md5.Sum(body)
		check(aws.ToString(put.ETag) == `"`+hex.EncodeToString(sum[:])+`"`, "ETag %s", aws.ToString(put.ETag))
		check(bytes.Equal(read(key, ""), body), "%s differs", key)
	}
	check(bytes.Equal(read("size-5242880", "bytes=100-199"), data(5 * mib)[100:200]), "a range differs")
}

func parts() {
	body := data(17*mib + 3)
	uploader := manager.NewUploader(client, func(u *manager.Uploader) { u.PartSize = 5 * mib })
	_, err := uploader.Upload(ctx, &s3.PutObjectInput{
		Bucket: bucket, Key: aws.String("in parts"), Body: bytes.NewBuffer(body), Metadata: map[string]string{"a": "b"},
	})
	must(err)
	buffer := manager.NewWriteAtBuffer(nil)
	_, err = manager.NewDownloader(client).Download(ctx, buffer, &s3.GetObjectInput{Bucket: bucket, Key: aws.String("in parts")})
	must(err)
	check(bytes.Equal(buffer.Bytes(), body), "in parts differs")
	head, err := client.HeadObject(ctx, &s3.HeadObjectInput{Bucket: bucket, Key: aws.String("in parts")})
	must(err)
	check(head.Metadata["a"] == "b" && *head.ContentLength == int64(len(body)), "metadata %v", head.Metadata)
}

func names() {
	keys := []string{"a b", "a+b", "%2F", "//double", "dir/", "ünï/🎉", strings.Repeat("x", 1024), "a&b<c>\"'", "../up"}
	for _, key := range keys {
		_, err := client.PutObject(ctx, &s3.PutObjectInput{Bucket: bucket, Key: aws.String(key), Body: strings.NewReader(key)})
		must(err)
		check(string(read(key, "")) == key, "%q differs", key)
	}
	listed := map[string]bool{}
	pages := s3.NewListObjectsV2Paginator(client, &s3.ListObjectsV2Input{Bucket: bucket, MaxKeys: aws.Int32(2)})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		must(err)
		for _, entry := range page.Contents {
			listed[aws.ToString(entry.Key)] = true
		}
	}
	sort.Strings(keys)
	var objects []types.ObjectIdentifier
	for _, key := range keys {
		check(listed[key], "%q is not listed", key)
		objects = append(objects, types.ObjectIdentifier{Key: aws.String(key)})
	}
	_, err := client.CopyObject(ctx, &s3.CopyObjectInput{
		Bucket: bucket, Key: aws.String("copied"), CopySource: aws.String(*bucket + "/a%20b"),
	})
	must(err)
	deleted, err := client.DeleteObjects(ctx, &s3.DeleteObjectsInput{Bucket: bucket, Delete: &types.Delete{Objects: objects}})
	must(err)
	check(len(deleted.Deleted) == len(keys) && len(deleted.Errors) == 0, "deleted %v", deleted.Deleted)
}

func presigned() {
	_, err := client.PutObject(ctx, &s3.PutObjectInput{Bucket: bucket, Key: aws.String("by url"), Body: strings.NewReader("x")})
	must(err)
	request, err := s3.NewPresignClient(client).PresignGetObject(
		ctx, &s3.GetObjectInput{Bucket: bucket, Key: aws.String("by url")}, s3.WithPresignExpires(time.Minute))
	must(err)
	answer, err := http.Get(request.URL)
	must(err)
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	must(err)
	check(answer.StatusCode == 200 && string(body) == "x", "presigned: %d %s", answer.StatusCode, body)
}

func failures() {
	var missing *types.NoSuchKey
	_, err := client.GetObject(ctx, &s3.GetObjectInput{Bucket: bucket, Key: aws.String("missing")})
	check(errors.As(err, &missing), "missing: %v", err)
	once := func() error {
		_, err := client.PutObject(ctx, &s3.PutObjectInput{
			Bucket: bucket, Key: aws.String("once"), Body: strings.NewReader("x"), IfNoneMatch: aws.String("*"),
		})
		return err
	}
	must(once())
	var refused smithy.APIError
	check(errors.As(once(), &refused) && refused.ErrorCode() == "PreconditionFailed", "once: %v", refused)
}

func file() {
	source, err := os.Open(os.Getenv("SOURCE"))
	must(err)
	defer source.Close()
	_, err = manager.NewUploader(client).Upload(ctx, &s3.PutObjectInput{Bucket: bucket, Key: aws.String("file"), Body: source})
	must(err)
	target, err := os.Create(os.Getenv("TARGET"))
	must(err)
	_, err = manager.NewDownloader(client).Download(ctx, target, &s3.GetObjectInput{Bucket: bucket, Key: aws.String("file")})
	must(err)
	must(target.Close())
}

func main() {
	trips := map[string]func(){
		"sizes": sizes, "parts": parts, "names": names, "presigned": presigned, "failures": failures, "file": file,
	}
	for _, name := range os.Args[1:] {
		trips[name]()
		fmt.Println("ok", name)
	}
}
