/* limit FILE OUT: the CPU seconds that compressing a file takes at least (ISA-L, level 1, one gzip
 * member to OUT) with the SHA-256 of what goes in and of what comes out, on one thread. */
#include <fcntl.h>
#include <isa-l/igzip_lib.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define PIECE (1u << 20)

static double cpu(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

int main(int argc, char **argv)
{
    static uint8_t level[ISAL_DEF_LVL1_DEFAULT], out[2 * PIECE];
    struct isal_zstream stream;
    struct stat st;
    int from = argc == 3 ? open(argv[1], O_RDONLY) : -1;
    int to = from < 0 ? -1 : open(argv[2], O_WRONLY | O_CREAT | O_TRUNC, 0600);
    double compress = 0;

    if (to < 0 || fstat(from, &st) != 0)
        return 2;
    uint8_t *data = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE | MAP_POPULATE, from, 0);
    if (data == MAP_FAILED)
        return 2;
    EVP_MD_CTX *raw = EVP_MD_CTX_new(), *packed = EVP_MD_CTX_new();
    EVP_DigestInit_ex(raw, EVP_sha256(), NULL);
    EVP_DigestInit_ex(packed, EVP_sha256(), NULL);
    isal_deflate_init(&stream);
    stream.level = 1;
    stream.level_buf = level;
    stream.level_buf_size = sizeof level;
    stream.gzip_flag = IGZIP_GZIP;
    for (off_t at = 0; at < st.st_size; at += PIECE) {
        size_t len = st.st_size - at < PIECE ? (size_t)(st.st_size - at) : PIECE;
        double start = cpu();
        stream.next_in = data + at;
        stream.avail_in = (uint32_t)len;
        stream.next_out = out;
        stream.avail_out = sizeof out;
        stream.end_of_stream = at + PIECE >= st.st_size;
        stream.flush = FULL_FLUSH;
        if (isal_deflate(&stream) != COMP_OK || stream.avail_in)
            return 1;
        size_t got = sizeof out - stream.avail_out;
        EVP_DigestUpdate(raw, data + at, len);
        EVP_DigestUpdate(packed, out, got);
        compress += cpu() - start;
        if (write(to, out, got) != (ssize_t)got)
            return 1;
    }
    printf("%.4f %lld\n", compress, (long long)lseek(to, 0, SEEK_CUR));
    return 0;
}
