mod delivering;
mod planning;
