! Heat conduction on the unit square, du/dt = d2u/dx2 + d2u/dy2, each side held at its temperature:
! the equation of the solver `heat`, by central differences in space and explicit Euler steps.
!
!     heat_fortran INPUT        INPUT is heat.nml with its values filled in
program heat
   use, intrinsic :: iso_fortran_env, only: real64
   use millstream
   implicit none
   integer :: grid_size, stored_steps, substeps, step, substep, n, unit
   real(real64) :: final_time, initial, left, right, bottom, top, h, interval, weight
   real(real64), allocatable :: u(:, :)
   character(256) :: input
   namelist /run/ grid_size, stored_steps, final_time
   namelist /temperatures/ initial, left, right, bottom, top

   call get_command_argument(1, input)
   open (newunit=unit, file=input, status="old", action="read")
   read (unit, nml=run)
   read (unit, nml=temperatures)
   close (unit)
   n = grid_size

   ! Explicit Euler is stable up to h**2 / 4; this is the largest step below h**2 / 5 that fits.
   h = 1.0_real64 / (n - 1)
   interval = final_time / (stored_steps - 1)
   substeps = ceiling(interval / (h**2 / 5))
   weight = interval / substeps / h**2

   ! u(x, y): the first index is the grid's last axis. A corner has the mean of its two sides.
   allocate (u(n, n), source=initial)
   u(1, :) = left
   u(n, :) = right
   u(:, 1) = bottom
   u(:, n) = top
   u(1, 1) = (left + bottom) / 2
   u(n, 1) = (right + bottom) / 2
   u(1, n) = (left + top) / 2
   u(n, n) = (right + top) / 2

   call millstream_init()
   do step = 0, stored_steps - 1
      call millstream_send(step, "temperature", u)
      if (step == stored_steps - 1) exit
      do substep = 1, substeps
         u(2:n - 1, 2:n - 1) = u(2:n - 1, 2:n - 1) + weight * ( &
            u(:n - 2, 2:n - 1) + u(3:, 2:n - 1) + u(2:n - 1, :n - 2) + u(2:n - 1, 3:) &
            - 4 * u(2:n - 1, 2:n - 1))
      end do
   end do
   call millstream_finalize()
end program
