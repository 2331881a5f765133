// From the bytes of stored images to what the network sees: crop, mirror, normalise, add colour noise, in one pass.
//
// images uint8 (count, C, H, W) -> y (N, C, P, Q), where image n of the batch is number which[n] of those stored:
//
//     pixel = images[which[n], c, tops[n] + p, lefts[n] + q]      mirrored: Q - 1 - q for q; outside the image: `fill`
//     y     = ((pixel - mean[c]) / std[c] + shift[n, c]) / divisor
//
// tops and lefts are negative where the crop begins above or left of the image. `mean` is one number per channel, or
// an image (C, P, Q) where mean_is_image. `shift` is the noise in the colours of an image, one number per channel,
// drawn for images already divided by std. Without noise it is 0, and divisor 1.
//
// The host draws tops, lefts, mirrored and shift: a few numbers an image, the same on every backend. What the GPU adds
// is rounded in the same places as minitorch_alex/data does it with NumPy, hence equal in float to the last bit.
//
// Launch: 256 threads a block, one thread per output pixel of one channel; grid (N * C, P * Q / 256 rounded up). The
// block's number tells the image and the channel, so that a thread divides only once, to find its row.
// What bounds it: memory, 1 byte in and 4 out (8 in double) per element.
//
// Source: AlexNet, section 2 (mean image) and 4.1 (crops, mirror images, colours).

template <typename T>
__global__ void augment(const unsigned char* __restrict__ images, const int* __restrict__ which,
                        const int* __restrict__ tops, const int* __restrict__ lefts,
                        const unsigned char* __restrict__ mirrored, const T* __restrict__ mean,
                        const T* __restrict__ std, const T* __restrict__ shift, T* __restrict__ y, int C, int H, int W,
                        int P, int Q, int fill, int mean_is_image, T divisor)
{
    int plane = blockIdx.x;  // n * C + c
    int n = plane / C;
    int c = plane % C;
    int place = blockIdx.y * blockDim.x + threadIdx.x;  // p * Q + q
    if (place >= P * Q) return;
    int p = place / Q;
    int q = place % Q;

    int row = tops[n] + p;
    int column = lefts[n] + (mirrored[n] ? Q - 1 - q : q);
    int pixel = fill;
    if (row >= 0 && row < H && column >= 0 && column < W) {
        long long source_plane = (long long)which[n] * C + c;
        pixel = images[(source_plane * H + row) * W + column];
    }

    T value = ((T)pixel - mean[mean_is_image ? c * P * Q + place : c]) / std[c];
    y[(long long)plane * P * Q + place] = (value + shift[plane]) / divisor;
}
