// One step of stochastic gradient descent with momentum and weight decay, for one array of weights, in one launch.
//
// w the weight, g its gradient, v its velocity, e the learning rate, m the momentum, d the weight decay:
//
//     sgd_paper    v <- m v - (d e) w - e g          w <- w + v             AlexNet, section 5
//     sgd_torch    v <- m v + k (g + d w)            w <- w - e v           PyTorch's; k = 1 - dampening
//                  at first v = g + d w; nesterov: w <- w - e (g + d w + m v); without momentum: w <- w - e (g + d w)
//
// As sgd_paper and sgd_torch of minitorch_alex/backends/numpy_backend.py, operation by operation, so that a GPU gives
// the very bits that NumPy gives. Two things could part them. A GPU fuses a * b + c into one operation with one
// rounding where NumPy rounds twice: `times` forbids it. And CuPy compiles such that floats below 1.2e-38 become 0,
// where NumPy lets them fade out: the velocity of a weight that gets no gradient any more ends a little earlier.
//
// `new_weight` may be `weight` itself, or another array where the old weights are still needed.
//
// Launch: 256 threads a block, one thread per weight.
// What bounds it: memory, 5 numbers a weight (w, g, v in; w, v out), 20 bytes in float. Array code, one operation after
// another, would read and write three times as many, hence the one launch.
// Source: AlexNet, section 5; PyTorch's documentation of torch.optim.SGD.

// A product that is rounded by itself.
__device__ float times(float a, float b) { return __fmul_rn(a, b); }
__device__ double times(double a, double b) { return __dmul_rn(a, b); }

// At first `velocity` holds zeros. `decay_times_rate` is d e: one product, made once, on the host.
template <typename T>
__global__ void sgd_paper(const T* weight, const T* __restrict__ gradient, T* __restrict__ velocity, T* new_weight,
                          T learning_rate, T momentum, T decay_times_rate, long long total)
{
    long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x;
    if (i >= total) return;

    T w = weight[i];
    T v = times(momentum, velocity[i]);
    if (decay_times_rate != 0) v = v - times(decay_times_rate, w);
    v = v - times(learning_rate, gradient[i]);
    velocity[i] = v;
    new_weight[i] = w + v;
}

// `is_first`: there is no velocity yet; whatever `velocity` holds is replaced. At momentum 0 it is not touched.
template <typename T>
__global__ void sgd_torch(const T* weight, const T* __restrict__ gradient, T* __restrict__ velocity, T* new_weight,
                          T learning_rate, T momentum, T decay, T one_minus_dampening, int nesterov, int is_first,
                          long long total)
{
    long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x;
    if (i >= total) return;

    T w = weight[i];
    T g = gradient[i];
    if (decay != 0) g = g + times(decay, w);
    if (momentum != 0) {
        T v = is_first ? g : times(momentum, velocity[i]) + times(one_minus_dampening, g);
        velocity[i] = v;
        g = nesterov ? g + times(momentum, v) : v;
    }
    new_weight[i] = w - times(learning_rate, g);
}
