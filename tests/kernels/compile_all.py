"""Compile every kernel for CUDA, on any machine; a program of its own, since the tests' triton may interpret."""

from braidkit.kernels import bridge, gaussian, posterior, simplex

FLOAT, HALF = "*fp32", "*bf16"


def compile_kernel(kernel, pointers, numbers, **constants):
    """Size of the machine code."""
    import triton
    from triton.backends.compiler import GPUTarget

    names = [name for name in kernel.arg_names if name not in constants]
    signature = dict(zip(names, [*pointers, *numbers], strict=True)) | dict.fromkeys(constants, "constexpr")
    source = triton.compiler.ASTSource(kernel, signature, constexprs=constants)
    return len(triton.compile(source, target=GPUTarget("cuda", 80, 32)).asm["cubin"])


def main():
    forward, backward = gaussian._kernels()
    for kind, shared in ((FLOAT, True), (HALF, False)):
        constants = {"SHARED": shared, "BLOCK": gaussian.BLOCK}
        print(compile_kernel(forward, [kind] * 5 + [FLOAT], ["i32"], **constants))
        print(compile_kernel(backward, [kind] * 5 + [FLOAT, kind, kind, kind], ["i32"], **constants))
    forward, backward = posterior._kernels()
    print(compile_kernel(forward, [HALF, FLOAT, FLOAT, FLOAT], ["i32"] * 2, BLOCK=posterior.BLOCK))
    print(compile_kernel(backward, [FLOAT, FLOAT, FLOAT, HALF], ["i32"] * 2, BLOCK=posterior.BLOCK))
    forward, backward = simplex._kernels()
    for kind, k in ((FLOAT, 4), (HALF, 20)):
        constants = {"K": k, "BLOCK": simplex.BLOCK}
        print(compile_kernel(forward, [FLOAT, kind, kind, *[FLOAT] * 8], ["fp32", "fp32", "i32"], **constants))
        pointers = [*[FLOAT] * 10, kind, kind, FLOAT, FLOAT]
        print(compile_kernel(backward, pointers, ["fp32", "fp32", "i32", "i32"], **constants))
    forward, backward = bridge._kernels()
    for kind, k in ((FLOAT, 4), (HALF, 20)):
        constants = {"K": k, "MARGIN": bridge.EPS, "BLOCK": bridge.BLOCK}
        numbers = ["fp32", "fp32", "fp32", "i32"]
        print(compile_kernel(forward, [FLOAT, kind, kind, *[FLOAT] * 10], numbers, **constants))
        print(compile_kernel(backward, [FLOAT] * 15, [*numbers, "i32"], **constants))


if __name__ == "__main__":
    main()
